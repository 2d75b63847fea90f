//! The ways a worker ends, or is left behind.

use std::sync::Arc;
use std::time::Duration;

use lookback_protocol::termination::TerminationMessage;
use tokio::time::{sleep, timeout};

use super::{Case, Worker, incarnation};
use crate::invariants::{self, copy_volume};

impl Case {
    /// Kills the worker: its future is dropped where it is, and its state file is what stands on the
    /// disk at that moment. With `noticed` the server sees its connection end at once.
    pub(crate) async fn kill(&mut self, noticed: bool) {
        let Some(worker) = self.current.take() else {
            return;
        };
        self.world.note(|| format!("kill w{}", worker.process));
        let left = self.root.path().join(format!("{}-killed", worker.process));
        std::fs::create_dir(&left).expect("a directory for a volume");
        copy_volume(&worker.volume, &left);
        self.volume = Some(left);
        self.bury(worker.process, noticed);
        worker.task.abort();
        let cancelled = worker.task.await;
        assert!(cancelled.is_ok() || cancelled.is_err_and(|it| it.is_cancelled()));
    }

    /// Kills the worker at its `calls`th port call from now, unless it ends before or lives longer
    /// than `limit`, when it is killed where it is.
    pub(crate) async fn kill_at_call(&mut self, calls: u64, limit: Duration) {
        let Some(worker) = &self.current else {
            return;
        };
        let doomed = Arc::clone(&worker.doomed);
        let process = worker.process;
        self.world.look(|state| {
            let process = state.processes.get_mut(&process);
            process.expect("it runs").crash_in = Some(calls);
        });
        let reached = timeout(limit, doomed.notified()).await.is_ok();
        self.world
            .note(|| format!("w{process} reached its call: {reached}"));
        let noticed = self.world.look(|state| state.rng.chance(300));
        self.kill(noticed).await;
    }

    /// Kills the worker right after it stored its first alert.
    pub(crate) async fn kill_at_first_alert(&mut self) {
        while self.world.look(|state| state.alerts.last() == 0) {
            sleep(Duration::from_micros(100)).await;
        }
        self.kill(true).await;
    }

    /// Kills the worker when it asks for an alert to be stored, before the request is on its way;
    /// gives up after `limit`.
    pub(crate) async fn kill_at_first_alert_request(&mut self, limit: Duration) {
        let Some(worker) = &self.current else {
            return;
        };
        let doomed = Arc::clone(&worker.doomed);
        self.world.lock().kill_on_create = true;
        let _reached = timeout(limit, doomed.notified()).await;
        self.world.lock().kill_on_create = false;
        self.kill(true).await;
    }

    /// A second process on the same file, until it ends.
    pub(crate) async fn run_beside(&mut self) -> Result<TerminationMessage, String> {
        let Some(first) = self.current.take() else {
            return Err("no worker runs".to_owned());
        };
        let second = self.spawn(first.volume.clone());
        self.current = Some(second);
        let ended = self.end_within(Duration::from_secs(30)).await;
        self.current = Some(first);
        ended
    }

    /// Cuts the connection of the running worker.
    pub(crate) fn cut(&self, silent: bool) {
        let now = self.world.now();
        let mut state = self.world.lock();
        let inbox = self.process().and_then(|it| state.processes[&it].inbox);
        if let Some(inbox) = inbox {
            state.settle(now);
            state.server.cut(inbox, silent, now);
        }
    }

    /// What `publish` publishes goes to the running worker's pull and is lost there.
    pub(crate) fn with_next_deliveries_lost(&self, publish: impl FnOnce(&Self) -> u64) -> u64 {
        let last = publish(self);
        self.cut(true);
        last
    }

    /// The worker goes on without knowing that it was replaced by the next one started. One that has
    /// not begun its state file stays: its volume would be an empty one.
    pub(crate) fn leave_as_zombie(&mut self) {
        let begun = |worker: &mut Worker| invariants::has_state(&worker.volume);
        if let Some(worker) = self.current.take_if(begun) {
            let process = worker.process;
            self.world.note(|| format!("w{process} is left behind"));
            let left = self.root.path().join(format!("{process}-copied"));
            std::fs::create_dir(&left).expect("a directory for a volume");
            copy_volume(&worker.volume, &left);
            self.volume = Some(left);
            self.left_behind.insert(incarnation(process));
            self.zombies.push(worker);
        }
    }

    /// SIGTERM, and the worker's last words.
    pub(crate) async fn drain(&mut self, limit: Duration) -> Result<TerminationMessage, String> {
        let Some(worker) = &mut self.current else {
            return Err("no worker runs".to_owned());
        };
        let process = worker.process;
        self.world.note(|| format!("drain w{process}"));
        if let Some(stop) = worker.stop.take() {
            let _already_ended = stop.send(());
        }
        self.end_within(limit).await
    }

    /// Waits for the worker to end by itself.
    pub(crate) async fn end_within(
        &mut self,
        limit: Duration,
    ) -> Result<TerminationMessage, String> {
        let Some(worker) = &mut self.current else {
            return Err("no worker runs".to_owned());
        };
        match timeout(limit, &mut worker.task).await {
            Ok(Ok(message)) => {
                let worker = self.current.take().expect("it ran");
                self.world
                    .note(|| format!("w{} ended: {message:?}", worker.process));
                self.bury(worker.process, true);
                self.volume = Some(worker.volume);
                self.ends.push(message.clone());
                Ok(message)
            }
            Ok(Err(panic)) => Err(format!("worker {} panicked: {panic}", worker.process)),
            Err(_) => Err(format!(
                "worker {} did not end in {limit:?}",
                worker.process
            )),
        }
    }

    pub(super) fn bury(&self, process: u64, noticed: bool) {
        let mut state = self.world.lock();
        let process = state.processes.get_mut(&process).expect("it ran");
        process.killed = true;
        if let Some(inbox) = process.inbox.take() {
            state.server.abandon(inbox, noticed);
        }
    }
}
