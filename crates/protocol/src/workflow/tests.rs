use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::alert::{self, AlertRecord, HistoryEntry, MAX_HISTORY, RuleKind, RuleRef};
use crate::audit::PastStep;
use crate::names::PipelineKey;
use crate::position::Epoch;

fn transition(id: &str, from: &[&str], to: &str) -> TransitionSpec {
    TransitionSpec {
        id: id.to_owned(),
        from: from.iter().map(|&state| state.to_owned()).collect(),
        to: to.to_owned(),
        guard: None,
    }
}

fn guarded(id: &str, from: &[&str], to: &str, guard: &str) -> TransitionSpec {
    TransitionSpec {
        guard: Some(guard.to_owned()),
        ..transition(id, from, to)
    }
}

fn spec(states: &[&str], transitions: impl IntoIterator<Item = TransitionSpec>) -> WorkflowSpec {
    WorkflowSpec {
        states: states.iter().map(|&state| state.to_owned()).collect(),
        transitions: transitions.into_iter().collect(),
    }
}

fn workflow(states: &[&str], transitions: impl IntoIterator<Item = TransitionSpec>) -> Workflow {
    Workflow::new(spec(states, transitions)).unwrap()
}

/// What is said about a workflow that cannot be followed.
fn told(states: &[&str], transitions: impl IntoIterator<Item = TransitionSpec>) -> Vec<String> {
    let faults = Workflow::new(spec(states, transitions)).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

pub(super) fn record() -> AlertRecord {
    AlertRecord {
        v: alert::VERSION,
        id: "NALWT6VCLWV6SU6LYVNMPAL6JE".to_owned(),
        state: NEW.to_owned(),
        rule: RuleRef {
            id: "8f3c0f9e-0000-4000-8000-000000000001".to_owned(),
            title: "Many failed logons".to_owned(),
            level: Some("high".to_owned()),
            tags: vec!["attack.t1110".to_owned()],
            kind: RuleKind::Correlation,
        },
        group_key: Vec::new(),
        window: None,
        events: Vec::new(),
        data: json!({"count": 5, "ratio": 0.5, "hosts": ["dc1", "dc2"]}),
        metadata: BTreeMap::from([("owner".to_owned(), "soc".to_owned())]),
        history: vec![HistoryEntry {
            time: "2026-02-03T04:05:06Z".parse().unwrap(),
            transition: CREATE.to_owned(),
            from: None,
            to: NEW.to_owned(),
            by: "worker/edr-0".to_owned(),
            reason: String::new(),
            prev_seq: 0,
        }],
        earlier: 0,
        op_id: "NALWT6VCLWV6SU6LYVNMPAL6JE".to_owned(),
        prev_seq: 0,
        pipeline: PipelineKey::new("prod", "edr").unwrap(),
        epoch: Epoch(3),
        replay: None,
        engine_digest: "9f86".to_owned(),
        by: "worker/edr-0".to_owned(),
    }
}

fn in_state(state: &str) -> AlertRecord {
    AlertRecord {
        state: state.to_owned(),
        ..record()
    }
}

fn now() -> Timestamp {
    "2026-02-03T05:00:00Z".parse().unwrap()
}

fn ask(to: To) -> Ask {
    Ask {
        to,
        by: "user/alice".to_owned(),
        reason: "looked at it".to_owned(),
        metadata: BTreeMap::new(),
        op_id: "0198c0de-0000-7000-8000-000000000001".to_owned(),
        time: now(),
    }
}

fn to(state: &str) -> Ask {
    ask(To::State(state.to_owned()))
}

fn by(transition: &str) -> Ask {
    ask(To::Transition(transition.to_owned()))
}

fn metadata<const N: usize>(patch: [(&str, Option<&str>); N]) -> Ask {
    Ask {
        metadata: patch
            .map(|(key, value)| (key.to_owned(), value.map(str::to_owned)))
            .into(),
        ..ask(To::Stay)
    }
}

#[track_caller]
fn refused(workflow: &Workflow, current: &AlertRecord, ask: &Ask) -> String {
    workflow.step(current, 7, ask).unwrap_err().to_string()
}

#[test]
fn s01_the_default_workflow_is_sound_and_leads_through_triage() {
    let workflow = Workflow::new(WorkflowSpec::default()).unwrap();
    let states: Vec<&str> = workflow.states().collect();
    assert_eq!(states, ["new", "triage", "escalated", "closed", "archived"]);
    let steps: Vec<String> = states
        .iter()
        .flat_map(|&from| {
            workflow
                .from_state(from)
                .map(move |step| format!("{from} -> {} -> {}", step.spec.id, step.spec.to))
        })
        .collect();
    assert_eq!(
        steps,
        [
            "new -> triage -> triage",
            "triage -> escalate -> escalated",
            "triage -> close -> closed",
            "escalated -> close -> closed",
            "closed -> reopen -> triage",
        ]
    );
}

#[test]
fn s02_a_transition_is_taken_from_each_of_its_states_and_from_no_other() {
    let workflow = Workflow::default();
    for from in ["triage", "escalated"] {
        let step = workflow.step(&in_state(from), 7, &to("closed")).unwrap();
        assert_eq!(
            (step.transition.as_str(), step.from.as_str()),
            ("close", from)
        );
        assert_eq!(step.record.state, "closed");
    }
    assert_eq!(
        refused(&workflow, &in_state("new"), &by("close")),
        "transition close cannot be taken from new; from new there is: triage -> triage, archive -> archived"
    );
}

#[test]
fn s02_a_guard_decides_by_the_alert_and_by_who_moves_it() {
    let workflow = workflow(
        &["closed"],
        [guarded(
            "close",
            &["new"],
            "closed",
            "alert.rule.level != 'high' || (by == 'user/lead' && reason.size() > 3)",
        )],
    );
    assert_eq!(
        refused(&workflow, &record(), &to("closed")),
        "the guard of transition close does not allow it: alert.rule.level != 'high' || (by == 'user/lead' && reason.size() > 3)"
    );
    let lead = Ask {
        by: "user/lead".to_owned(),
        ..to("closed")
    };
    assert!(workflow.step(&record(), 7, &lead).is_ok());
    let mut low = record();
    low.rule.level = Some("low".to_owned());
    assert!(workflow.step(&low, 7, &to("closed")).is_ok());
}

#[test]
fn s02_a_guard_that_gives_no_answer_lets_nobody_through() {
    let workflow = workflow(
        &["closed"],
        [guarded(
            "close",
            &["new"],
            "closed",
            "alert.metadata.ticket != ''",
        )],
    );
    let refusal = workflow.step(&record(), 7, &to("closed")).unwrap_err();
    let source = std::error::Error::source(&refusal).unwrap();
    assert_eq!(refusal.to_string(), "transition close is not taken");
    assert_eq!(
        source.to_string(),
        "guard \"alert.metadata.ticket != ''\" cannot be evaluated: there is no ticket"
    );
}

#[test]
fn s03_every_fault_of_a_workflow_is_named() {
    let told = told(
        &["triage", "new", "Closed", "triage", "lost", "left"],
        [
            transition("take", &["new", "gone"], "triage"),
            transition("take", &["triage"], "nowhere"),
            transition("archive", &["archived"], "archived"),
            transition("stay", &["triage", "new"], "triage"),
            transition("none", &[], "triage"),
            guarded("odd", &["new"], "triage", "alert."),
        ],
    );
    assert_eq!(
        told,
        [
            "state new is built in: leave it out, or give it another name",
            "state \"Closed\" must match ^[a-z]([-a-z0-9]*[a-z0-9])?$ and have at most 40 characters",
            "state triage stands there twice: take one away, or give it another name",
            "state left is built in: leave it out, or give it another name",
            "transition take stands there twice: take one away, or give it another name",
            "transition archive is built in: leave it out, or give it another name",
            "transition take names \"gone\" in from, which is no state: add it to states, or name another",
            "transition take names \"nowhere\" in to, which is no state: add it to states, or name another",
            "transition archive names archived in from: take it away, as every alert can be archived without a transition, and none comes back",
            "transition archive names archived in to: take it away, as every alert can be archived without a transition, and none comes back",
            "transition stay leads from triage to itself: take triage out of its from, as metadata can be changed without a transition",
            "transition none can be taken from no state: give it one in from",
            "no way leads from new to Closed, lost, left: add a transition, or take the state away",
            "correct the guard of transition odd: guard \"alert.\" is no CEL expression that can be used: line 1, column 7: no viable alternative at input '.'",
        ]
    );
}

#[test]
fn s03_states_that_lead_only_to_each_other_are_unreachable() {
    let told = told(
        &["triage", "one", "two"],
        [
            transition("take", &["new"], "triage"),
            transition("there", &["one"], "two"),
            transition("back", &["two"], "one"),
        ],
    );
    assert_eq!(
        told,
        ["no way leads from new to one, two: add a transition, or take the state away"]
    );
}

#[test]
fn s03_a_name_of_more_than_one_token_is_refused() {
    for name in [
        "a.b",
        "*",
        ">",
        "",
        "a b",
        "-a",
        "a-",
        "1a",
        "Ä",
        &"a".repeat(41),
    ] {
        let told = told(&[name], [transition("take", &["new"], name)]);
        assert_eq!(told.len(), 1, "{name:?}: {told:?}");
        assert!(told[0].contains("must match"), "{name:?}: {told:?}");
    }
    let longest = "a".repeat(MAX_NAME);
    workflow(&[&longest], [transition(&longest, &["new"], &longest)]);
}

#[test]
fn s03_more_states_or_transitions_than_can_be_shown_are_refused() {
    let names: Vec<String> = (0..=MAX_TRANSITIONS).map(|at| format!("s{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let chain = |count: usize| {
        let all: Vec<&str> = std::iter::once(NEW).chain(names.iter().copied()).collect();
        let pairs = all.windows(2).take(count);
        pairs
            .map(|pair| transition(pair[1], &[pair[0]], pair[1]))
            .collect::<Vec<_>>()
    };
    let most = MAX_STATES - 2;
    assert_eq!(
        workflow(&names[..most], chain(most)).states().count(),
        MAX_STATES
    );
    assert_eq!(
        told(&names[..=most], chain(most + 1)),
        ["there are 31 states, and 30 at most can be: take some away"]
    );
    let step = |at: usize| transition(names[at], &["new"], "done");
    workflow(&["done"], (0..MAX_TRANSITIONS).map(step));
    assert_eq!(
        told(&["done"], (0..=MAX_TRANSITIONS).map(step)),
        ["there are 65 transitions, and 64 at most can be: take some away"]
    );
}

#[test]
fn s04_an_alert_can_go_round_as_often_as_somebody_wants() {
    let workflow = Workflow::default();
    let mut current = in_state("triage");
    for round in 0..3 {
        for state in ["closed", "triage"] {
            let step = workflow.step(&current, 10 + round, &to(state)).unwrap();
            current = step.record;
        }
    }
    assert_eq!(current.state, "triage");
    let taken: Vec<&str> = current.history[1..]
        .iter()
        .map(|entry| entry.transition.as_str())
        .collect();
    assert_eq!(taken, ["close", "reopen"].repeat(3));
}

#[test]
fn s04_a_way_back_to_new_is_allowed() {
    let workflow = workflow(
        &["triage"],
        [
            transition("take", &["new"], "triage"),
            transition("release", &["triage"], "new"),
        ],
    );
    let step = workflow.step(&in_state("triage"), 7, &to("new")).unwrap();
    assert_eq!(step.record.state, NEW);
}

#[test]
fn a_step_writes_who_took_it_from_which_version_and_why() {
    let step = Workflow::default()
        .step(&record(), 48_213, &to("triage"))
        .unwrap();
    let expected = AlertRecord {
        state: "triage".to_owned(),
        history: [
            record().history,
            vec![HistoryEntry {
                time: now(),
                transition: "triage".to_owned(),
                from: Some(NEW.to_owned()),
                to: "triage".to_owned(),
                by: "user/alice".to_owned(),
                reason: "looked at it".to_owned(),
                prev_seq: 48_213,
            }],
        ]
        .concat(),
        op_id: "0198c0de-0000-7000-8000-000000000001".to_owned(),
        prev_seq: 48_213,
        by: "user/alice".to_owned(),
        ..record()
    };
    assert_eq!(
        step,
        Step {
            from: NEW.to_owned(),
            transition: "triage".to_owned(),
            record: expected,
            overflow: Vec::new(),
        }
    );
}

#[test]
fn metadata_is_set_and_taken_away_without_a_move() {
    let patch = metadata([("ticket", Some("INC-1")), ("owner", None), ("never", None)]);
    let step = Workflow::default().step(&record(), 7, &patch).unwrap();
    assert_eq!(step.transition, UPDATE);
    assert_eq!((step.from.as_str(), step.record.state.as_str()), (NEW, NEW));
    assert_eq!(
        step.record.metadata,
        BTreeMap::from([("ticket".to_owned(), "INC-1".to_owned())])
    );
    assert_eq!(step.record.history.last().unwrap().transition, UPDATE);
}

#[test]
fn metadata_beyond_its_bounds_is_refused_by_name() {
    let workflow = Workflow::default();
    let key = "k".repeat(MAX_METADATA_KEY);
    let value = "v".repeat(MAX_METADATA_VALUE);
    assert!(
        workflow
            .step(&record(), 7, &metadata([(&key, Some(&value))]))
            .is_ok()
    );
    assert_eq!(
        refused(&workflow, &record(), &metadata([("", Some("x"))])),
        "metadata key \"\" must have 1 to 63 characters"
    );
    let long = format!("{key}k");
    assert_eq!(
        refused(&workflow, &record(), &metadata([(&long, Some("x"))])),
        format!("metadata key {long:?} must have 1 to 63 characters")
    );
    let long = format!("{value}v");
    assert_eq!(
        refused(&workflow, &record(), &metadata([("note", Some(&long))])),
        "metadata note may have 1024 bytes, not 1025"
    );
}

#[test]
fn metadata_that_is_full_can_still_be_changed_and_taken_away() {
    let workflow = Workflow::default();
    let mut full = record();
    full.metadata = (0..MAX_METADATA)
        .map(|at| (format!("k{at}"), String::new()))
        .collect();
    assert_eq!(
        refused(&workflow, &full, &metadata([("more", Some("x"))])),
        "metadata may have 64 keys, and there would be 65: take some away first"
    );
    let exchanged = metadata([("k0", None), ("more", Some("x")), ("k1", Some("y"))]);
    let step = workflow.step(&full, 7, &exchanged).unwrap();
    assert_eq!(step.record.metadata.len(), MAX_METADATA);
    full.metadata.insert("beyond".to_owned(), String::new());
    let fewer = metadata([("k0", None)]);
    assert!(workflow.step(&full, 7, &fewer).is_ok());
}

#[test]
fn a_reason_that_is_too_long_is_refused() {
    let talkative = Ask {
        reason: "x".repeat(MAX_REASON + 1),
        ..to("triage")
    };
    assert_eq!(
        refused(&Workflow::default(), &record(), &talkative),
        "a reason may have 1024 characters: shorten it"
    );
}

#[test]
fn every_state_leads_into_the_archive_but_not_without_a_reason() {
    let workflow = Workflow::default();
    for state in ["new", "triage", "escalated", "closed", "unheard-of"] {
        for archive in [ask(To::Archive), to("archived"), by("archive")] {
            let step = workflow.step(&in_state(state), 7, &archive).unwrap();
            assert_eq!(step.transition, ARCHIVE);
            assert_eq!(
                (step.from.as_str(), step.record.state.as_str()),
                (state, ARCHIVED)
            );
            let silent = Ask {
                reason: "  ".to_owned(),
                ..archive
            };
            assert_eq!(
                refused(&workflow, &in_state(state), &silent),
                "give a reason: it is all that is left of why the alert went away"
            );
        }
    }
}

#[test]
fn nothing_leads_out_of_the_archive() {
    let archived = in_state(ARCHIVED);
    for ask in [to("triage"), ask(To::Archive), ask(To::Stay), by("reopen")] {
        assert_eq!(
            refused(&Workflow::default(), &archived, &ask),
            "alert NALWT6VCLWV6SU6LYVNMPAL6JE is archived, and nothing leads from there"
        );
    }
}

#[test]
fn an_alert_in_a_state_that_the_workflow_lost_can_only_be_archived_or_changed() {
    let workflow = Workflow::default();
    let lost = in_state("on-hold");
    for ask in [to("triage"), by("triage")] {
        assert_eq!(
            refused(&workflow, &lost, &ask),
            "the workflow has no state on-hold any more, so no transition leads from it: archive the alert, or give the workflow that state back"
        );
    }
    assert!(workflow.step(&lost, 7, &ask(To::Archive)).is_ok());
    assert!(
        workflow
            .step(&lost, 7, &metadata([("a", Some("b"))]))
            .is_ok()
    );
}

#[test]
fn a_move_that_is_none_says_what_there_is() {
    let workflow = Workflow::default();
    assert_eq!(
        refused(&workflow, &in_state("triage"), &to("new")),
        "no transition leads from triage to new; from triage there is: escalate -> escalated, close -> closed, archive -> archived"
    );
    assert_eq!(
        refused(&workflow, &in_state("triage"), &to("triage")),
        "the alert is in state triage already"
    );
}

#[test]
fn of_several_transitions_one_must_be_named() {
    let workflow = workflow(
        &["closed"],
        [
            transition("solve", &["new"], "closed"),
            transition("ignore", &["new"], "closed"),
        ],
    );
    assert_eq!(
        refused(&workflow, &record(), &to("closed")),
        "several transitions lead from new to closed: solve, ignore; name one"
    );
    let step = workflow.step(&record(), 7, &by("ignore")).unwrap();
    assert_eq!(step.transition, "ignore");
}

#[test]
fn what_the_history_has_no_room_for_is_handed_out_with_its_place() {
    let workflow = Workflow::default();
    let mut current = record();
    let mut out = Vec::new();
    for round in 0..u64::try_from(MAX_HISTORY).unwrap() + 2 {
        let step = workflow
            .step(&current, 100 + round, &ask(To::Stay))
            .unwrap();
        out.extend(step.overflow);
        current = step.record;
    }
    assert_eq!((current.history.len(), current.earlier), (MAX_HISTORY, 3));
    let places: Vec<(u64, u64)> = out
        .iter()
        .map(|past| (past.number, past.entry.prev_seq))
        .collect();
    assert_eq!(places, [(0, 0), (1, 100), (2, 101)]);
    assert_eq!(out[0].entry, record().history[0]);
    assert_eq!(current.history[0].prev_seq, 102);
}

#[test]
fn each_step_but_the_last_has_its_sequence_from_the_one_after_it() {
    let mut history = record().history;
    for prev_seq in [11, 0, 17] {
        history.push(HistoryEntry {
            prev_seq,
            ..history[0].clone()
        });
    }
    assert_eq!(
        sequences(&history, Some(23)),
        [Some(11), None, Some(17), Some(23)]
    );
    assert_eq!(sequences(&history[..1], None), [None]);
    assert_eq!(sequences(&[], Some(23)), []);
}

/// What somebody may try: numbers, so that tries that are refused shrink as well.
fn tries() -> impl Strategy<Value = Vec<(u8, u8)>> {
    proptest::collection::vec((0..10_u8, 0..4_u8), 0..200)
}

proptest! {
    #[test]
    fn whatever_steps_are_taken_nothing_of_a_life_is_lost(tries in tries()) {
        let workflow = Workflow::default();
        let states = ["new", "triage", "escalated", "closed"];
        let mut current = record();
        let mut sequence = 1;
        let mut past: Vec<PastStep> = Vec::new();
        let mut taken = 1;
        for (what, which) in tries {
            let ask = match what {
                0..=5 => to(states[usize::from(which)]),
                6..=8 => metadata([("tried", Some(states[usize::from(which)]))]),
                _ => ask(To::Archive),
            };
            let Ok(step) = workflow.step(&current, sequence, &ask) else {
                continue;
            };
            prop_assert_eq!(&step.from, &current.state);
            prop_assert_eq!(step.record.prev_seq, sequence);
            past.extend(step.overflow);
            current = step.record;
            taken += 1;
            sequence += 1 + u64::from(which);
        }
        prop_assert!(workflow.has_state(&current.state));
        prop_assert!(current.history.len() <= MAX_HISTORY);
        prop_assert_eq!(usize::try_from(current.earlier).unwrap() + current.history.len(), taken);
        let numbers: Vec<u64> = past.iter().map(|past| past.number).collect();
        prop_assert_eq!(numbers, (0..current.earlier).collect::<Vec<_>>());
        let life: Vec<HistoryEntry> = past
            .into_iter()
            .map(|past| past.entry)
            .chain(current.history.clone())
            .collect();
        for pair in life.windows(2) {
            prop_assert!(pair[0].prev_seq < pair[1].prev_seq);
            prop_assert_eq!(Some(&pair[0].to), pair[1].from.as_ref());
        }
        prop_assert_eq!(&life.last().unwrap().to, &current.state);
        let sequences = sequences(&life, Some(sequence));
        prop_assert!(sequences.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_workflow_is_sound_or_every_fault_is_a_sentence(
        states in proptest::collection::vec("[a-c]|new|archived|left|A", 0..4),
        steps in proptest::collection::vec(
            ("[a-d]|update", proptest::collection::vec("[a-c]|new|archived", 0..3), "[a-c]|new|archived"),
            0..6,
        ),
    ) {
        let transitions = steps.into_iter().map(|(id, from, to)| TransitionSpec {
            id,
            from,
            to,
            guard: None,
        });
        match Workflow::new(WorkflowSpec { states, transitions: transitions.collect() }) {
            Ok(workflow) => {
                for state in workflow.states() {
                    for step in workflow.from_state(state) {
                        prop_assert!(workflow.has_state(&step.spec.to));
                        prop_assert_ne!(&step.spec.to, state);
                        prop_assert_ne!(&step.spec.to, ARCHIVED);
                    }
                }
            }
            Err(faults) => {
                prop_assert!(!faults.is_empty());
                prop_assert!(sentences(&faults).contains(": ") || sentences(&faults).contains("must"));
            }
        }
    }
}

#[test]
fn states_that_only_earlier_workflows_had_are_kept_once() {
    let owner = Owner {
        cluster: "cluster".to_owned(),
        pipeline: PipelineKey::new("prod", "edr").unwrap(),
    };
    let with = |states: &[&str]| {
        let mut definition = Definition::new(owner.clone(), &Workflow::default());
        definition.workflow.states = states.iter().map(|&state| state.to_owned()).collect();
        definition
    };
    let third = with(&["c"]).after(with(&["a", "b"]).after(with(&["b", "c", "d"])));
    assert_eq!(third.former, ["a", "b", "d"]);
    assert_eq!(third.clone().after(third.clone()), third);
    let states: Vec<_> = third.states().collect();
    assert_eq!(states, ["new", "c", "a", "b", "d", "archived"]);
}
