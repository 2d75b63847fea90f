//! The integration tests: adapters, worker and operator against real servers.

mod nats_audit;
mod nats_checkpoint;
mod nats_connect;
mod nats_fixture;
mod nats_log;
mod nats_objects;
mod nats_outbox;
mod nats_survey;
mod operator_faults;
mod operator_fixture;
mod operator_lifecycle;
mod operator_pipeline;
mod operator_role;
mod operator_story;
mod operator_suspend;
mod process_fixture;
mod stand;
mod stand_works;
mod worker;
mod worker_delivery;
mod worker_events;
mod worker_fixture;
mod worker_process;
mod worker_rules;
mod worker_server;
mod worker_state;
