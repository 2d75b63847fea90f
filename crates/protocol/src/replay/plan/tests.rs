//! Plans over a small stream that answers the questions itself.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::config::{CorrelationConfig, Emit, Limits, Refire, TimestampFallback};
use crate::position::StreamIdentity;
use crate::replay::record::ReadBack;
use crate::replay::request::{Approval, Outputs, Yes};

const DAY: i64 = 86_400;

/// Second `n` of a day.
fn second(n: i64) -> Timestamp {
    let midnight: Timestamp = "2026-03-04T00:00:00Z".parse().unwrap();
    midnight + SignedDuration::from_secs(n)
}

fn stream() -> StreamIdentity {
    StreamIdentity {
        name: "EVENTS".to_owned(),
        created: second(-DAY),
    }
}

/// A stream with messages from `first` through `last`, one every 10 seconds beginning with message 1
/// at 10, of which those with an even sequence are under the filter.
struct Stream {
    bounds: Bounds,
    state: Option<StoredState>,
    now: Timestamp,
    correlation: CorrelationConfig,
    chain: u64,
    sessions: bool,
}

fn published(sequence: u64) -> Timestamp {
    second(10 * i64::try_from(sequence).unwrap())
}

fn messages(first: u64, last: u64) -> Stream {
    let held = first <= last;
    let messages = (last + 1).saturating_sub(first);
    Stream {
        bounds: Bounds {
            identity: stream(),
            first: StreamSeq(first),
            last: StreamSeq(last),
            first_time: held.then(|| published(first)),
            last_time: (last > 0).then(|| published(last)),
            messages,
            bytes: 100 * messages,
        },
        state: None,
        now: published(last + 1),
        correlation: CorrelationConfig {
            timestamp_fields: Vec::new(),
            timestamp_fallback: TimestampFallback::Published,
            allowed_lateness_seconds: 8,
            max_future_skew_seconds: 4,
            refire: Refire::OncePerWindow,
            emit: Emit::All,
            limits: Limits {
                groups: 10,
                events_per_group: 10,
            },
        },
        chain: 20,
        sessions: false,
    }
}

impl Stream {
    fn at(mut self, position: u64) -> Self {
        self.state = Some(StoredState {
            stream: stream(),
            position: Position {
                sequence: StreamSeq(position),
                published: Some(published(position)),
            },
            groups: 3,
            late: 0,
        });
        self
    }

    fn held(&self) -> impl DoubleEndedIterator<Item = Message> {
        (self.bounds.first.0..=self.bounds.last.0).map(|sequence| Message {
            sequence: StreamSeq(sequence),
            published: published(sequence),
        })
    }

    fn ours(&self) -> impl DoubleEndedIterator<Item = Message> {
        self.held().filter(|message| message.sequence.0 % 2 == 0)
    }

    fn find(&self, find: Find) -> Option<Message> {
        match find {
            Find::At(sequence) => self.held().find(|message| message.sequence == sequence),
            Find::Since(time) => self.held().find(|message| message.published >= time),
            Find::FirstUnderFilter(from) => self.ours().find(|message| message.sequence >= from),
            Find::LastUnderFilter => self.ours().next_back(),
        }
    }

    fn count(&self, range: Range) -> u64 {
        assert!(self.ours().any(|message| message.sequence == range.through));
        let within = |message: &Message| (range.from..=range.through).contains(&message.sequence);
        self.ours().filter(within).count() as u64
    }

    /// Plans as the operator does: asks until there is a plan or a rejection.
    fn plan(&self, request: &ReplayRequest) -> Result<Plan, Rejection> {
        let facts = Facts {
            now: self.now,
            stream: &self.bounds,
            state: self.state.as_ref(),
            correlation: &self.correlation,
            longest_chain_seconds: self.chain,
            session_windows: self.sessions,
            rate: Some(2),
            known_alerts: None,
        };
        let mut answers = Answers::default();
        for _ in 0..9 {
            match plan(request, &facts, &answers) {
                Ok(plan) => return Ok(plan),
                Err(Stop::Rejected(rejection)) => return Err(rejection),
                Err(Stop::Find(find)) => {
                    assert_eq!(answers.found.insert(find, self.find(find)), None);
                }
                Err(Stop::Count(range)) => {
                    assert_eq!(answers.counts.insert(range, self.count(range)), None);
                }
            }
        }
        panic!("asked without end: {answers:?}");
    }

    fn read_back(&self, start: ReplayStart) -> ReadBack {
        let plan = self.plan(&clamped(start, StatePolicy::Rebuild)).unwrap();
        assert_eq!(plan.windows, Windows::Rebuilt);
        plan.read_back.unwrap()
    }
}

fn sequence(sequence: u64) -> ReplayStart {
    ReplayStart::FromSequence(StreamSeq(sequence))
}

fn time(seconds: i64) -> ReplayStart {
    ReplayStart::FromTime(second(seconds))
}

const LATEST: ReplayStart = ReplayStart::Latest(Yes);

fn request(start: ReplayStart, policy: StatePolicy) -> ReplayRequest {
    ReplayRequest::new(None, start, policy).unwrap()
}

fn clamped(start: ReplayStart, policy: StatePolicy) -> ReplayRequest {
    ReplayRequest {
        on_truncated: OnTruncated::Clamp,
        ..request(start, policy)
    }
}

fn auto(start: ReplayStart) -> ReplayRequest {
    request(start, StatePolicy::Auto)
}

fn start_of(stream: &Stream, request: &ReplayRequest) -> Result<(u64, bool), &'static str> {
    let plan = stream.plan(request);
    plan.map(|plan| (plan.start.0, plan.truncated))
        .map_err(|rejection| rejection.reason())
}

#[test]
fn every_start_becomes_one_sequence() {
    let whole = messages(1, 100);
    for (start, expected) in [
        (sequence(1), Ok((1, false))),
        (sequence(100), Ok((100, false))),
        (sequence(101), Ok((101, false))),
        (sequence(102), Err("StartBeyondEnd")),
        (LATEST, Ok((101, false))),
        (time(0), Ok((1, false))),
        (time(500), Ok((50, false))),
        (time(501), Ok((51, false))),
        (time(1000), Ok((100, false))),
        (time(1001), Ok((101, false))),
        (time(1010), Ok((101, false))),
        (time(1011), Err("StartInFuture")),
    ] {
        assert_eq!(start_of(&whole, &auto(start)), expected, "{start:?}");
    }
}

#[test]
fn a_start_within_the_second_of_the_position_is_told_apart_by_its_sequence() {
    let stream = messages(1, 100).at(50);
    let nanosecond = SignedDuration::from_nanos(1);
    let at = |time| stream.plan(&auto(ReplayStart::FromTime(time))).unwrap();
    let (same, after) = (at(published(50)), at(published(50) + nanosecond));
    assert_eq!((same.start.0, same.windows), (50, Windows::Dropped));
    assert_eq!((after.start.0, after.windows), (51, Windows::Kept));
}

#[test]
fn a_start_that_left_the_stream_is_rejected_unless_what_is_left_is_wanted() {
    let stream = messages(40, 100);
    for (start, truncated) in [
        (sequence(39), true),
        (sequence(0), true),
        (sequence(40), false),
        (time(399), true),
        (time(400), false),
    ] {
        let fail = if truncated {
            Err("StartTruncated")
        } else {
            Ok((40, false))
        };
        assert_eq!(start_of(&stream, &auto(start)), fail, "{start:?}");
        let clamp = clamped(start, StatePolicy::Auto);
        assert_eq!(start_of(&stream, &clamp), Ok((40, truncated)), "{start:?}");
    }
}

#[test]
fn a_stream_that_lost_nothing_truncates_nothing() {
    assert_eq!(
        start_of(&messages(1, 100), &auto(sequence(0))),
        Ok((1, false))
    );
    assert_eq!(
        start_of(&messages(0, 0), &auto(sequence(1))),
        Ok((1, false))
    );
    assert_eq!(start_of(&messages(0, 0), &auto(time(5))), Ok((1, false)));
}

#[test]
fn an_empty_stream_is_truncated_up_to_its_last_message() {
    let emptied = messages(101, 100);
    assert_eq!(
        start_of(&emptied, &auto(sequence(100))),
        Err("StartTruncated")
    );
    assert_eq!(start_of(&emptied, &auto(time(1000))), Err("StartTruncated"));
    assert_eq!(start_of(&emptied, &auto(time(1001))), Ok((101, false)));
    assert_eq!(start_of(&emptied, &auto(LATEST)), Ok((101, false)));
}

/// (policy, position, start) -> (windows, reason, gap, counted twice)
#[test]
fn what_becomes_of_the_windows_is_told_with_what_it_costs() {
    use StatePolicy::{Auto, Clear, Keep, Rebuild};
    use Windows::{Dropped, Kept, Rebuilt};
    for (policy, position, start, expected) in [
        (Auto, 50, sequence(51), (Kept, "StartAfterPosition", 0, 0)),
        (Auto, 50, sequence(61), (Kept, "StartAfterPosition", 5, 0)),
        (
            Auto,
            50,
            sequence(50),
            (Dropped, "StartNotAfterPosition", 0, 0),
        ),
        (
            Auto,
            50,
            sequence(11),
            (Dropped, "StartNotAfterPosition", 0, 0),
        ),
        (Auto, 50, LATEST, (Dropped, "Latest", 25, 0)),
        (Auto, 100, LATEST, (Dropped, "Latest", 0, 0)),
        (Clear, 50, sequence(61), (Dropped, "ForceClear", 5, 0)),
        (Keep, 50, sequence(51), (Kept, "ForceKeep", 0, 0)),
        (Keep, 50, sequence(41), (Kept, "ForceKeep", 0, 5)),
        (Keep, 50, LATEST, (Kept, "ForceKeep", 25, 0)),
        (Rebuild, 50, sequence(61), (Rebuilt, "Rebuild", 5, 0)),
        (Rebuild, 50, sequence(41), (Rebuilt, "Rebuild", 0, 0)),
    ] {
        let plan = messages(1, 100)
            .at(position)
            .plan(&request(start, policy))
            .unwrap();
        let told = (
            plan.windows,
            plan.reason.as_str(),
            plan.gap,
            plan.double_counted,
        );
        assert_eq!(told, expected, "{policy:?} from {start:?}");
        assert_eq!(plan.position, Some(StreamSeq(position)));
        assert_eq!(plan.groups, 3);
    }
}

#[test]
fn without_a_checkpoint_there_is_no_position() {
    let plan = messages(1, 100).plan(&auto(sequence(61))).unwrap();
    assert_eq!((plan.position, plan.gap, plan.groups), (None, 0, 0));
    assert_eq!(
        (plan.windows, plan.reason.as_str()),
        (Windows::Dropped, "NoPosition")
    );
}

#[test]
fn what_is_read_is_counted_under_the_filter_up_to_the_last_message_under_it() {
    let plan = messages(1, 101).at(50).plan(&auto(sequence(91))).unwrap();
    assert_eq!(plan.target, StreamSeq(100));
    assert_eq!(plan.start_time, Some(published(92)));
    assert_eq!(
        (plan.messages, plan.bytes, plan.eta_seconds),
        (5, 500, Some(3))
    );
}

#[test]
fn from_the_next_message_on_there_is_nothing_to_catch_up_with() {
    let plan = messages(1, 101).at(50).plan(&auto(LATEST)).unwrap();
    assert_eq!(
        (plan.messages, plan.bytes, plan.eta_seconds),
        (0, 0, Some(0))
    );
    assert_eq!((plan.target, plan.start_time), (StreamSeq(100), None));
    let plan = messages(0, 0).plan(&auto(LATEST)).unwrap();
    assert_eq!((plan.start, plan.target), (StreamSeq(1), StreamSeq(0)));
}

/// A stream made again, one that ends before the position, and one whose sequences were used again.
fn foreign() -> [(Stream, &'static str); 3] {
    let mut made_again = messages(1, 100).at(50);
    made_again.bounds.identity.created = second(0);
    let mut used_again = messages(1, 100).at(50);
    used_again.state.as_mut().unwrap().position.published = Some(published(51));
    [
        (made_again, "StreamChanged"),
        (messages(1, 100).at(101), "StreamRegressed"),
        (used_again, "StreamRegressed"),
    ]
}

#[test]
fn windows_of_another_stream_are_never_kept() {
    for (stream, reason) in foreign() {
        for policy in [StatePolicy::Auto, StatePolicy::Keep] {
            let rejection = stream.plan(&request(sequence(60), policy)).unwrap_err();
            assert_eq!(rejection.reason(), reason);
            assert!(
                rejection.to_string().ends_with("use Clear or Rebuild"),
                "{rejection}"
            );
        }
    }
}

#[test]
fn windows_of_another_stream_can_be_left_behind() {
    for (stream, reason) in foreign() {
        for (policy, windows) in [
            (StatePolicy::Clear, Windows::Dropped),
            (StatePolicy::Rebuild, Windows::Rebuilt),
        ] {
            let plan = stream.plan(&request(sequence(60), policy)).unwrap();
            assert_eq!((plan.windows, plan.reason.as_str()), (windows, reason));
            assert_eq!((plan.position, plan.gap), (None, 0));
        }
    }
}

#[test]
fn a_position_whose_message_expired_is_of_the_stream() {
    let plan = messages(60, 100).at(50).plan(&auto(sequence(61))).unwrap();
    assert_eq!((plan.windows, plan.gap), (Windows::Kept, 1));
}

/// Twice the chain of 20 s and the lateness of 8 s, and the skew of 4 s, are 60 s, six messages.
#[test]
fn a_rebuild_reads_back_as_far_as_a_window_can_depend_on() {
    let read_back = messages(1, 100).at(50).read_back(sequence(61));
    assert_eq!(
        read_back,
        ReadBack {
            from: StreamSeq(56),
            seconds_needed: 60,
            seconds_available: 60,
            exact: true,
            inexact_because: String::new(),
        }
    );
    let plan = messages(1, 100)
        .at(50)
        .plan(&request(sequence(61), StatePolicy::Rebuild));
    assert_eq!(plan.unwrap().messages, 23);
}

#[test]
fn a_rebuild_from_the_next_message_on_reads_back_from_the_last() {
    let read_back = messages(1, 101).at(50).read_back(LATEST);
    assert_eq!((read_back.from.0, read_back.exact), (95, true));
}

#[test]
fn a_rebuild_says_why_it_is_not_exact() {
    let mut stream = messages(40, 100).at(60);
    stream.sessions = true;
    stream.state.as_mut().unwrap().late = 7;
    let read_back = stream.read_back(sequence(41));
    assert_eq!((read_back.from.0, read_back.exact), (40, false));
    assert_eq!(
        (read_back.seconds_needed, read_back.seconds_available),
        (60, 20)
    );
    assert_eq!(
        read_back.inexact_because,
        "of the 60 s before the start only 20 s are still in the stream; where a session window \
         begins depends on everything before it; 7 events came later than allowedLateness, so others may \
         be missing in windows"
    );
    stream = messages(40, 100).at(60);
    stream.correlation.limits.groups = 3;
    assert_eq!(
        stream.read_back(sequence(70)).inexact_because,
        "there are 3 groups, as many as the limit allows: which are evicted depends on what came before"
    );
    stream.state = None;
    assert_eq!(
        stream.read_back(sequence(70)).inexact_because,
        "no worker has said yet whether events come late"
    );
}

#[test]
fn a_rebuild_over_the_whole_stream_is_exact_whatever_it_holds() {
    let mut stream = messages(1, 100).at(60);
    stream.sessions = true;
    stream.state.as_mut().unwrap().late = 7;
    assert_eq!(
        (
            stream.read_back(sequence(4)).from.0,
            stream.read_back(sequence(4)).exact
        ),
        (1, true)
    );
    assert!(messages(0, 0).read_back(sequence(1)).exact);
}

#[test]
fn a_rebuild_over_an_emptied_stream_is_not_exact() {
    let read_back = messages(101, 100).at(100).read_back(LATEST);
    assert_eq!(
        (
            read_back.from.0,
            read_back.seconds_available,
            read_back.exact
        ),
        (101, 0, false)
    );
}

#[test]
fn windows_longer_than_time_reads_back_to_the_beginning() {
    let mut stream = messages(1, 100).at(60);
    stream.chain = u64::MAX;
    assert_eq!(stream.read_back(sequence(61)).from.0, 1);
}

#[test]
fn windows_that_depend_on_the_wall_clock_cannot_be_made_again() {
    let mut stream = messages(1, 100).at(50);
    stream.correlation.timestamp_fallback = TimestampFallback::WallClock;
    let plan = |policy| stream.plan(&request(sequence(40), policy));
    assert_eq!(plan(StatePolicy::Rebuild), Err(Rejection::NotDeterministic));
    assert!(plan(StatePolicy::Clear).is_ok());
}

#[test]
fn rejections_name_the_numbers_and_what_to_do() {
    let of = |stream: &Stream, start| stream.plan(&auto(start)).unwrap_err().to_string();
    let mut stream = messages(40, 100);
    assert_eq!(
        of(&stream, sequence(102)),
        "fromSequence 102 is beyond the end of the stream, whose last message is 100: set it to 101 at \
         most, or use latest: true"
    );
    assert_eq!(
        of(&stream, time(2000)),
        "fromTime 2026-03-04T00:33:20Z is later than now, 2026-03-04T00:16:50Z: set a time that has \
         passed, or use latest: true"
    );
    assert_eq!(
        of(&stream, sequence(3)),
        "fromSequence 3 has left the stream, which now begins at message 40, stored at \
         2026-03-04T00:06:40Z: set a later start, or onTruncated: Clamp to begin there"
    );
    stream = stream.at(101);
    assert_eq!(
        of(&stream, sequence(50)),
        "the windows have counted messages through 101, and the last message of the stream is 100: \
         statePolicy Auto cannot go on with them, use Clear or Rebuild"
    );
}

#[test]
fn the_hash_of_a_plan_is_pinned() {
    let plan = messages(1, 100)
        .at(50)
        .plan(&request(sequence(41), StatePolicy::Rebuild));
    assert_eq!(plan.unwrap().hash, "p-7a08a2678c68");
}

#[test]
fn the_same_plan_has_the_same_hash_and_what_decides_has_another() {
    let stream = messages(1, 100).at(50);
    let of = |request: &ReplayRequest| stream.plan(request).unwrap().hash;
    let asked = auto(sequence(41));
    assert_eq!(of(&asked), of(&asked));
    let manual = ReplayRequest {
        approval: Approval::Manual,
        ..asked.clone()
    };
    assert_eq!(
        of(&manual),
        of(&asked),
        "who approves is no part of what is done"
    );
    let tagged = ReplayRequest {
        outputs: Outputs::Tag,
        ..asked.clone()
    };
    let named = ReplayRequest::new(Some("x"), sequence(41), StatePolicy::Auto).unwrap();
    for other in [
        tagged,
        named,
        clamped(sequence(41), StatePolicy::Auto),
        auto(sequence(40)),
        request(sequence(41), StatePolicy::Clear),
    ] {
        assert_ne!(of(&other), of(&asked), "{other:?}");
    }
    for other in [messages(1, 102).at(50), messages(1, 100).at(52)] {
        assert_ne!(other.plan(&asked).unwrap().hash, of(&asked));
    }
}

/// Plans over `planned` and checks it again over `now`.
fn checked(planned: &Stream, now: &Stream, request: &ReplayRequest) -> Result<(), &'static str> {
    let plan = planned.plan(request).unwrap();
    check_again(request, &plan, &now.bounds, now.state.as_ref())
        .map_err(|rejection| rejection.reason())
}

fn manual(start: ReplayStart, policy: StatePolicy) -> ReplayRequest {
    ReplayRequest {
        approval: Approval::Manual,
        ..request(start, policy)
    }
}

#[test]
fn a_plan_holds_while_the_stream_grows_and_the_worker_goes_on() {
    let planned = messages(1, 100).at(50);
    for policy in [
        StatePolicy::Auto,
        StatePolicy::Keep,
        StatePolicy::Clear,
        StatePolicy::Rebuild,
    ] {
        let request = manual(sequence(41), policy);
        assert_eq!(
            checked(&planned, &messages(2, 200).at(150), &request),
            Ok(())
        );
    }
}

#[test]
fn a_start_that_leaves_the_stream_after_it_was_planned_is_found() {
    let (planned, now) = (messages(1, 100).at(50), messages(42, 100).at(50));
    let asked = auto(sequence(41));
    assert_eq!(checked(&planned, &now, &asked), Err("StartTruncated"));
    let clamp = clamped(sequence(41), StatePolicy::Auto);
    assert_eq!(checked(&planned, &now, &clamp), Ok(()));
}

#[test]
fn a_plan_holds_for_one_incarnation_of_the_stream_only() {
    let planned = messages(1, 100).at(50);
    let mut now = messages(1, 100).at(50);
    now.bounds.identity.created = second(0);
    let asked = request(sequence(41), StatePolicy::Clear);
    assert_eq!(checked(&planned, &now, &asked), Err("PlanOutdated"));
}

#[test]
fn windows_that_were_to_be_kept_are_not_dropped_because_the_worker_passed_the_start() {
    let (planned, passed) = (messages(1, 100).at(50), messages(1, 100).at(61));
    for request in [auto(sequence(61)), manual(sequence(61), StatePolicy::Auto)] {
        assert_eq!(checked(&planned, &planned, &request), Ok(()));
        assert_eq!(checked(&planned, &passed, &request), Err("PlanOutdated"));
    }
}

#[test]
fn what_was_approved_is_done_as_it_was_seen_or_not_at_all() {
    let (planned, expired) = (messages(1, 100).at(50), messages(57, 100).at(50));
    let rebuild = |approval| ReplayRequest {
        approval,
        ..request(sequence(61), StatePolicy::Rebuild)
    };
    let check = |approval| checked(&planned, &expired, &rebuild(approval));
    assert_eq!(check(Approval::Manual), Err("PlanOutdated"));
    assert_eq!(check(Approval::Automatic), Ok(()));

    let (nothing, begun) = (messages(1, 100), messages(1, 100).at(50));
    let check = |request| checked(&nothing, &begun, &request);
    assert_eq!(
        check(manual(sequence(61), StatePolicy::Auto)),
        Err("PlanOutdated")
    );
    assert_eq!(check(auto(sequence(61))), Ok(()));
}

#[test]
fn a_plan_that_no_longer_holds_says_what_has_changed() {
    let asked = manual(sequence(61), StatePolicy::Auto);
    let plan = messages(1, 100).at(50).plan(&asked).unwrap();
    let now = messages(1, 100).at(61);
    let rejection = check_again(&asked, &plan, &now.bounds, now.state.as_ref()).unwrap_err();
    assert_eq!(
        rejection.to_string(),
        format!(
            "plan {} no longer holds: windows were to be Kept from position 50, and from 61 they would \
             be Dropped; give the request a new id to plan it again",
            plan.hash
        )
    );
}

#[test]
fn a_summary_leaves_out_what_there_is_nothing_to_say_about() {
    let summary_of = |stream: Stream, request: &ReplayRequest| {
        let plan = stream.plan(request).unwrap();
        summary(&plan).replace(&plan.hash, "H")
    };
    assert_eq!(
        summary_of(
            messages(1, 100).at(50),
            &request(sequence(41), StatePolicy::Keep)
        ),
        "plan H: begins at message 41 stored at 2026-03-04T00:07:00Z (the position is 50), reads 30 \
         messages through 100 in about 15 s, goes on with the windows (ForceKeep; 3 groups now); counts \
         5 messages a second time"
    );
    assert_eq!(
        summary_of(
            messages(40, 100).at(20),
            &clamped(sequence(30), StatePolicy::Rebuild)
        ),
        "plan H: begins at message 40 stored at 2026-03-04T00:06:40Z (the position is 20), reads 31 \
         messages through 100 in about 16 s, makes the windows again (Rebuild; 3 groups now) from message \
         40 on, without alerts before the start, not exactly: of the 60 s before the start only 0 s are \
         still in the stream; what was asked for has left the stream"
    );
}

proptest! {
    /// Whatever is asked for: what is jumped over, counted twice and read are the messages under the
    /// filter that a reader of the whole stream would name, and windows that Auto keeps count none
    /// twice.
    #[test]
    fn counts_are_those_of_the_messages(
        first in 1..30u64, held in 0..30u64, back in 0..60u64, from in 0..62u64,
        policy in proptest::sample::select(vec![
            StatePolicy::Auto, StatePolicy::Keep, StatePolicy::Clear, StatePolicy::Rebuild,
        ]),
    ) {
        let last = first + held - 1;
        let position = last.saturating_sub(back);
        let stream = messages(first, last).at(position);
        let start = sequence(from.min(last + 1));
        let plan = stream.plan(&clamped(start, policy)).unwrap();
        let number = |range: std::ops::Range<u64>| {
            stream.ours().filter(|message| range.contains(&message.sequence.0)).count() as u64
        };
        let begins = plan.read_back.as_ref().map_or(plan.start, |back| back.from);
        prop_assert!(begins <= plan.start);
        prop_assert_eq!(plan.messages, number(begins.0..last + 1));
        prop_assert_eq!(plan.gap, number(position + 1..plan.start.0));
        let kept = plan.windows == Windows::Kept;
        let twice = if kept { number(plan.start.0..position + 1) } else { 0 };
        prop_assert_eq!(plan.double_counted, twice);
        prop_assert!(policy != StatePolicy::Auto || twice == 0);
        prop_assert_eq!(plan.truncated, from < first && first > 1);
    }
}
