//! The integration tests: the adapters against real servers.

mod nats_checkpoint;
mod nats_connect;
mod nats_fixture;
mod nats_log;
mod nats_objects;
mod nats_outbox;
mod operator_faults;
mod operator_fixture;
mod operator_lifecycle;
mod operator_pipeline;
mod operator_role;
mod worker;
