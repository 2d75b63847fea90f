use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::names::Owner;
use lookback_protocol::position::StreamSeq;

use super::*;
use crate::api::Profile;
use crate::api::pipeline::ADOPT;
use crate::operator::pipeline::build::worker_config;
use crate::operator::pipeline::facts::{ConfigMapFact, NatsFacts, Retention, SecretContent};
use crate::operator::pipeline::test_support::{
    BAD_RULE, EPOCH, FULL, MINIMAL, RULE, at, config_map, consumer, facts, pipeline, running_facts,
    validated, validation, with_consumer, with_server,
};

fn reasons(validation: &Validation) -> Vec<Reason> {
    validation
        .problems
        .iter()
        .map(|problem| problem.reason)
        .collect()
}

/// The reasons given when one thing outside differs from the fixture.
fn reasons_when(change: impl FnOnce(&mut Dereferenced)) -> Vec<Reason> {
    let pipeline = pipeline(FULL);
    let mut facts = facts(&pipeline);
    change(&mut facts);
    let validation = validation(&pipeline, &facts);
    assert!(validation.pipeline.is_none(), "something was built");
    reasons(&validation)
}

/// The messages about a spec that differs from the fixture in one line.
fn refused(from: &str, to: &str) -> Vec<String> {
    assert!(FULL.contains(from), "{from} is not in the fixture");
    let pipeline = pipeline(&FULL.replace(from, to));
    let validation = validation(&pipeline, &facts(&pipeline));
    assert!(validation.pipeline.is_none(), "something was built");
    let of_spec = validation
        .problems
        .iter()
        .filter(|it| it.reason == Reason::InvalidSpec);
    of_spec.map(ToString::to_string).collect()
}

fn rules(facts: &mut Dereferenced, files: &[(&str, &str)]) {
    facts.rules = vec![config_map("rules", files)];
}

#[test]
fn a_pipeline_whose_outside_is_as_it_should_be_has_no_problem() {
    for yaml in [MINIMAL, FULL] {
        let pipeline = pipeline(yaml);
        let validation = validation(&pipeline, &facts(&pipeline));
        assert_eq!(validation.problems, []);
        assert!(validation.pipeline.is_some());
    }
}

/// FULL has a state that is reached from another one only.
const UNREACHABLE: (&str, &str) = ("to: done, guard", "to: looking, guard");

#[test]
fn s03_a_workflow_that_cannot_be_followed_is_named_and_everything_else_is_built() {
    let pipeline = pipeline(&FULL.replace(UNREACHABLE.0, UNREACHABLE.1));
    let validation = validation(&pipeline, &facts(&pipeline));
    assert_eq!(reasons(&validation), [Reason::InvalidWorkflow]);
    assert_eq!(
        validation.problems[0].message,
        "spec.alerts.workflow: transition finish leads from looking to itself: take looking out of its from, as metadata can be changed without a transition; no way leads from new to done: add a transition, or take the state away"
    );
    let built = validation.pipeline.unwrap();
    assert!(built.workflow.is_none());
}

#[test]
fn a_missing_secret_is_named_with_the_key_it_needs() {
    let pipeline = pipeline(FULL);
    let mut facts = facts(&pipeline);
    facts.secrets[0].content = SecretContent::NoSecret;
    let validation = validation(&pipeline, &facts);
    assert_eq!(reasons(&validation), [Reason::SecretMissing]);
    assert_eq!(
        validation.problems[0].message,
        "Secret nats does not exist: create it with the key user.creds"
    );
}

#[test]
fn a_secret_without_the_key_is_named() {
    let reasons = reasons_when(|facts| facts.secrets[1].content = SecretContent::NoKey);
    assert_eq!(reasons, [Reason::SecretKeyMissing]);
}

#[test]
fn what_nats_answers_decides_the_reason() {
    let answers = [
        (NatsFacts::NotAsked, vec![]),
        (
            NatsFacts::Unavailable("x".to_owned()),
            vec![Reason::NatsUnavailable],
        ),
        (
            NatsFacts::Refused("x".to_owned()),
            vec![Reason::NatsRefused],
        ),
        (
            NatsFacts::JetStreamDisabled("x".to_owned()),
            vec![Reason::JetStreamDisabled],
        ),
    ];
    for (answer, expected) in answers {
        assert_eq!(reasons_when(|facts| facts.nats = answer), expected);
    }
}

#[test]
fn a_server_below_level_4_is_too_old() {
    let reasons = reasons_when(|facts| {
        with_server(facts, |server| {
            server.api_level = 3;
            server.version = "2.12.4".to_owned();
        });
    });
    assert_eq!(reasons, [Reason::ServerTooOld]);
}

#[test]
fn a_server_below_2_14_4_is_used_with_a_warning() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = facts(&pipeline);
    with_server(&mut facts, |server| server.version = "2.14.3".to_owned());
    let validation = validation(&pipeline, &facts);
    assert_eq!(reasons(&validation), [Reason::ServerOutdated]);
    assert!(validation.pipeline.is_some());
}

#[test]
fn a_source_that_does_not_exist_is_missing() {
    let reasons = reasons_when(|facts| with_server(facts, |server| server.source = None));
    assert_eq!(reasons, [Reason::SourceMissing]);
}

#[test]
fn a_source_whose_retention_removes_what_is_acknowledged_is_unsupported() {
    for retention in [Retention::WorkQueue, Retention::Interest] {
        let reasons = reasons_when(|facts| {
            with_server(facts, |server| {
                server.source.as_mut().unwrap().retention = retention;
            });
        });
        assert_eq!(reasons, [Reason::SourceUnsupported]);
    }
}

#[test]
fn a_source_created_again_is_told_from_the_one_the_worker_was_given() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = running_facts(&pipeline);
    with_server(&mut facts, |server| {
        server.source.as_mut().unwrap().identity.created = at("2026-11-20T00:00:00Z");
        with_consumer(server, None);
        server.checkpoint = Ok(None);
    });
    let validation = validation(&pipeline, &facts);
    assert_eq!(reasons(&validation), [Reason::StreamChanged]);
    assert!(validation.pipeline.is_none());
}

#[test]
fn a_source_created_again_is_told_from_the_checkpoint_when_nothing_runs() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = running_facts(&pipeline);
    facts.running = None;
    with_server(&mut facts, |server| {
        server.source.as_mut().unwrap().identity.created = at("2026-11-20T00:00:00Z");
    });
    assert_eq!(
        reasons(&validation(&pipeline, &facts)),
        [Reason::StreamChanged]
    );
}

#[test]
fn a_consumer_of_another_owner_is_foreign() {
    let reasons = reasons_when(|facts| {
        with_server(facts, |server| {
            let other = Owner {
                cluster: "c2".to_owned(),
                ..crate::operator::pipeline::test_support::owner()
            };
            let metadata = ConsumerMetadata::new(&other, EPOCH, StreamSeq(1));
            with_consumer(server, Some(consumer(metadata)));
        });
    });
    assert_eq!(reasons, [Reason::ForeignConsumer]);
}

#[test]
fn a_consumer_of_an_owner_that_is_adopted_is_not_foreign() {
    let mut pipeline = pipeline(MINIMAL);
    let adopt = (ADOPT.to_owned(), "c2/detections/edr".to_owned());
    pipeline.metadata.annotations = Some([adopt].into());
    let other = Owner {
        cluster: "c2".to_owned(),
        ..crate::operator::pipeline::test_support::owner()
    };
    let mut facts = facts(&pipeline);
    with_server(&mut facts, |server| {
        let metadata = ConsumerMetadata::new(&other, EPOCH, StreamSeq(7));
        with_consumer(server, Some(consumer(metadata)));
    });
    let validated = validated(&pipeline, &facts);
    assert_eq!(validated.adopt, Some(other));
    assert_eq!(validated.source.start, StreamSeq(7));
}

#[test]
fn an_annotation_that_names_no_owner_adopts_nothing() {
    let mut pipeline = pipeline(MINIMAL);
    for text in ["", "c2", "c2/edr", "c2/detections/no_name"] {
        let adopt = (ADOPT.to_owned(), text.to_owned());
        pipeline.metadata.annotations = Some([adopt].into());
        assert_eq!(adopted(&pipeline), None, "{text:?}");
    }
}

#[test]
fn latest_begins_with_the_next_event_and_earliest_with_the_first_one_kept() {
    let latest = pipeline(MINIMAL);
    assert_eq!(
        validated(&latest, &facts(&latest)).source.start,
        StreamSeq(501)
    );
    let earliest = pipeline(FULL);
    assert_eq!(
        validated(&earliest, &facts(&earliest)).source.start,
        StreamSeq(101)
    );
}

#[test]
fn the_start_is_resolved_once_and_then_read_from_the_consumer() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = running_facts(&pipeline);
    facts.running = None;
    with_server(&mut facts, |server| {
        server.source.as_mut().unwrap().last = StreamSeq(900);
    });
    assert_eq!(validated(&pipeline, &facts).source.start, StreamSeq(501));
}

#[test]
fn a_deleted_consumer_is_made_again_with_the_start_the_worker_was_told() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = running_facts(&pipeline);
    with_server(&mut facts, |server| {
        with_consumer(server, None);
        server.source.as_mut().unwrap().last = StreamSeq(900);
    });
    assert_eq!(validated(&pipeline, &facts).source.start, StreamSeq(501));
}

#[test]
fn a_pipeline_created_again_over_a_checkpoint_starts_behind_it() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = running_facts(&pipeline);
    facts.running = None;
    with_server(&mut facts, |server| with_consumer(server, None));
    assert_eq!(validated(&pipeline, &facts).source.start, StreamSeq(498));
}

#[test]
fn streams_have_three_copies_in_a_cluster_one_on_a_single_server_and_what_the_spec_says() {
    let minimal = pipeline(MINIMAL);
    let clustered = facts(&minimal);
    assert_eq!(validated(&minimal, &clustered).alerts.replicas, 3);
    let mut single = facts(&minimal);
    with_server(&mut single, |server| server.clustered = false);
    assert_eq!(validated(&minimal, &single).alerts.replicas, 1);
    let one = pipeline(&MINIMAL.replace("spec:", "spec:\n  alerts: {replicas: 1}"));
    assert_eq!(validated(&one, &facts(&one)).alerts.replicas, 1);
}

#[test]
fn a_missing_config_map_is_named_before_anything_ran() {
    let reasons = reasons_when(|facts| {
        facts.rules = vec![ConfigMapFact {
            name: "rules".to_owned(),
            files: None,
        }];
    });
    assert_eq!(reasons, [Reason::ConfigMapMissing]);
}

#[test]
fn a_config_map_that_goes_missing_leaves_the_rules_that_run() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = running_facts(&pipeline);
    facts.rules = vec![ConfigMapFact {
        name: "rules".to_owned(),
        files: None,
    }];
    let validation = validation(&pipeline, &facts);
    assert_eq!(reasons(&validation), [Reason::ConfigMapMissing]);
    assert_eq!(validation.pipeline.unwrap().rules.detections, 1);
}

#[test]
fn config_maps_without_rules_are_no_rules() {
    for files in [vec![], vec![("README.md", "no rules"), ("shell.txt", RULE)]] {
        assert_eq!(
            reasons_when(|facts| rules(facts, &files)),
            [Reason::NoRules]
        );
    }
}

#[test]
fn a_set_of_which_nothing_can_be_used_is_no_rules_and_names_the_document() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = facts(&pipeline);
    rules(&mut facts, &[("bad.yml", BAD_RULE)]);
    let validation = validation(&pipeline, &facts);
    assert_eq!(reasons(&validation), [Reason::NoRules]);
    assert!(
        validation.problems[0].message.contains("rules/bad.yml"),
        "{:?}",
        validation.problems
    );
    assert!(validation.pipeline.is_none());
}

#[test]
fn the_very_first_set_is_loaded_without_its_bad_documents() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = facts(&pipeline);
    rules(&mut facts, &[("bad.yml", BAD_RULE), ("good.yml", RULE)]);
    let validation = validation(&pipeline, &facts);
    assert_eq!(reasons(&validation), [Reason::DocumentsLeftOut]);
    assert_eq!(validation.rules.problems.len(), 1);
    assert_eq!(validation.pipeline.unwrap().rules.detections, 1);
}

#[test]
fn keep_previous_keeps_the_set_that_runs_when_a_new_one_has_a_bad_document() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = running_facts(&pipeline);
    let runs = facts.running.clone().unwrap().config.rules.engine_digest;
    rules(&mut facts, &[("bad.yml", BAD_RULE), ("shell.yml", RULE)]);
    let validation = validation(&pipeline, &facts);
    assert_eq!(reasons(&validation), [Reason::RulesRejected]);
    assert_eq!(validation.pipeline.unwrap().rules.engine_digest, runs);
    assert_ne!(validation.rules.desired, Some(runs));
}

#[test]
fn load_good_runs_what_can_be_used_of_a_new_set() {
    let pipeline = pipeline(FULL);
    let mut facts = running_facts(&pipeline);
    rules(&mut facts, &[("bad.yml", BAD_RULE), ("shell.yml", RULE)]);
    let validation = validation(&pipeline, &facts);
    assert_eq!(reasons(&validation), [Reason::DocumentsLeftOut]);
    let digest = validation.pipeline.unwrap().rules.engine_digest;
    assert_eq!(validation.rules.desired, Some(digest));
}

#[test]
fn a_set_that_becomes_empty_leaves_the_one_that_runs() {
    for yaml in [MINIMAL, FULL] {
        let pipeline = pipeline(yaml);
        let mut facts = running_facts(&pipeline);
        rules(&mut facts, &[]);
        let validation = validation(&pipeline, &facts);
        assert_eq!(reasons(&validation), [Reason::NoRules]);
        assert!(validation.pipeline.is_some());
    }
}

#[test]
fn a_duplicate_id_is_named() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = facts(&pipeline);
    rules(&mut facts, &[("a.yml", RULE), ("b.yml", RULE)]);
    let validation = validation(&pipeline, &facts);
    assert_eq!(reasons(&validation), [Reason::DocumentsLeftOut]);
    let message = &validation.problems[0].message;
    assert!(message.contains("rules/b.yml"), "{message}");
    assert!(
        message.contains("6a7a2b7e-6f0f-4c06-9f4c-6a1f6b1c0f01"),
        "{message}"
    );
}

#[test]
fn subjects_that_overlap_are_refused_by_name() {
    let messages = refused(
        "'events.windows.>'",
        "'events.windows.>', 'events.*.sysmon'",
    );
    assert_eq!(messages.len(), 1);
    assert!(
        messages[0].contains("\"events.windows.>\" and \"events.*.sysmon\""),
        "{messages:?}"
    );
}

#[test]
fn ages_that_jetstream_takes_for_for_ever_are_refused() {
    assert_eq!(
        refused("maxAge: 90d", "maxAge: 0d"),
        ["spec.alerts.maxAge is 0d, which is not between 1s and 36500d"]
    );
}

#[test]
fn a_batch_that_stays_open_for_longer_than_a_minute_is_refused() {
    assert_eq!(
        refused("interval: 250ms", "interval: 2m"),
        ["spec.commit.interval is 2m, which is not between 1ms and 1m"]
    );
}

#[test]
fn labels_of_the_operator_are_refused() {
    assert_eq!(
        refused("cost-center: '42'", "app.kubernetes.io/instance: other"),
        ["spec.worker.labels holds app.kubernetes.io/instance, which is the operator's own"]
    );
}

#[test]
fn a_volume_that_grows_keeps_the_size_of_the_template() {
    let facts = running_facts(&pipeline(FULL));
    let grown = pipeline(&FULL.replace("size: 20Gi", "size: 40Gi"));
    let storage = validated(&grown, &facts).storage;
    assert_eq!(storage.size.to_string(), "40Gi");
    assert_eq!(storage.template_size.to_string(), "20Gi");
}

#[test]
fn every_setting_of_the_correlation_reaches_the_worker() {
    let pipeline = pipeline(FULL);
    let config = validated(&pipeline, &facts(&pipeline)).correlation;
    assert_eq!(config.timestamp_fields, ["EventTime"]);
    assert_eq!(
        (
            config.allowed_lateness_seconds,
            config.max_future_skew_seconds
        ),
        (90, 60)
    );
    assert_eq!(
        (config.limits.groups, config.limits.events_per_group),
        (1000, 100)
    );
}

/// What a profile makes of the smallest spec on a server that is part of a cluster: copies, age in
/// seconds and bytes of alerts and of dead letters, batches, and time-outs in milliseconds.
type Made = ((u8, u64, u64), (u64, u64), (u64, u64), (u128, u128));

fn made(yaml: &str) -> Made {
    let pipeline = pipeline(yaml);
    let built = validated(&pipeline, &facts(&pipeline));
    let (alerts, letters) = (built.alerts, built.dead_letters);
    assert_eq!(alerts.replicas, letters.replicas);
    (
        (alerts.replicas, alerts.max_age.as_secs(), alerts.max_bytes),
        (letters.max_age.as_secs(), letters.max_bytes),
        (built.commit.interval_ms, built.commit.events),
        (
            built.nats.timeouts.connect.as_millis(),
            built.nats.timeouts.request.as_millis(),
        ),
    )
}

fn of_profile(profile: &str) -> String {
    MINIMAL.replace("spec:", &format!("spec:\n  profile: {profile}"))
}

const DAY: u64 = 86_400;

#[test]
fn s39_a_pipeline_without_a_profile_is_what_it_was_before_there_were_profiles() {
    let before = (
        (3, 30 * DAY, 10 << 30),
        (30 * DAY, 1 << 30),
        (1_000, 5_000),
        (5_000, 5_000),
    );
    assert_eq!(made(MINIMAL), before);
    assert_eq!(made(&of_profile("Production")), before);
}

#[test]
fn s39_development_keeps_little_in_one_copy_and_commits_soon() {
    let expected = (
        (1, DAY, 256 << 20),
        (DAY, 64 << 20),
        (100, 500),
        (2_000, 2_000),
    );
    assert_eq!(made(&of_profile("Development")), expected);
}

#[test]
fn s39_high_throughput_has_larger_batches_larger_streams_and_more_time_for_an_answer() {
    let expected = (
        (3, 30 * DAY, 50 << 30),
        (30 * DAY, 10 << 30),
        (2_000, 20_000),
        (5_000, 15_000),
    );
    assert_eq!(made(&of_profile("HighThroughput")), expected);
}

#[test]
fn s39_what_the_spec_says_wins_over_every_profile() {
    for profile in ["Development", "Production", "HighThroughput"] {
        let said = of_profile(profile)
            .replace(":4222']", ":4222'], connectTimeout: 3s, requestTimeout: 4s")
            .replace(
                "spec:",
                "spec:
  alerts: {replicas: 5, maxAge: 2h, maxBytes: 5Mi}
  deadLetters: {maxAge: 3h, maxBytes: 6Mi}
  commit: {interval: 7s, events: 8}",
            );
        let expected = (
            (5, 7_200, 5 << 20),
            (10_800, 6 << 20),
            (7_000, 8),
            (3_000, 4_000),
        );
        assert_eq!(made(&said), expected, "{profile}");
    }
}

#[test]
fn s39_no_profile_asks_for_what_a_spec_may_not_ask_for() {
    for profile in Profile::ALL {
        let spec = pipeline(&of_profile(&format!("{profile:?}"))).spec;
        assert_eq!(spec.profile, profile);
        assert_eq!(spec::problems(&spec, &profile.knobs()), []);
        assert_ne!(profile.knobs().replicas, Some(2));
    }
}

#[test]
fn s39_a_time_out_that_helps_nobody_is_refused_and_not_waited_for_until_then() {
    for (given, used) in [("0s", 100), ("99ms", 100), ("2m", 60_000)] {
        let urls = "'tls://nats-1.nats:4333']";
        let with = format!("{urls}\n    requestTimeout: {given}");
        assert_eq!(
            refused(urls, &with),
            [format!(
                "spec.nats.requestTimeout is {given}, which is not between 100ms and 1m"
            )]
        );
        let timeouts = timeouts(&pipeline(&FULL.replace(urls, &with)).spec);
        assert_eq!(timeouts.request, Duration::from_millis(used));
    }
}

#[test]
fn s39_the_worker_is_told_time_outs_only_where_they_are_not_its_own() {
    let told = |profile: &str| {
        let pipeline = pipeline(&of_profile(profile));
        let nats = worker_config(&validated(&pipeline, &facts(&pipeline))).nats;
        (nats.connect_timeout_ms, nats.request_timeout_ms)
    };
    assert_eq!(told("Production"), (None, None));
    assert_eq!(told("Development"), (Some(2_000), Some(2_000)));
    assert_eq!(told("HighThroughput"), (None, Some(15_000)));
}
