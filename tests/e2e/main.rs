//! End to end: a real API server, kubelet and containerd, real pods with volumes, a real NATS. Each
//! test has a cluster of its own and kills in it what it likes. Needs root and `make setup image`.

mod ctl;
mod deletion;
mod faults;
mod operator;
mod replay;
mod rules;
mod stage;
mod worker;
