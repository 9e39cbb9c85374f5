//! The last acts of an instance that was told to end.

use super::Instance;
use super::watch::Watch;
use crate::Error;
use loaded_netfilter::Installed;
use loaded_queue::{QueueState, queue_owners};
use std::process::Child as Process;
use std::time::{Duration, Instant};

/// How long packets that still wait may take to be answered once the rules are gone.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3);
/// How long a child may take to end once it is told to: a worker looks every 50 ms.
const DISMISS_DEADLINE: Duration = Duration::from_secs(1);
/// How often something is looked at that no descriptor announces.
const PAUSE: Duration = Duration::from_millis(5);

impl Instance {
    /// Removes the rules, lets the workers answer the packets that still wait, and ends the children.
    ///
    /// # Errors
    /// If the rules cannot be removed.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        self.stop_upgrade();
        // What is removed from now on is removed by us.
        self.watch = Watch::new();
        if let Some(fast) = &mut self.host.fast {
            fast.detach();
            log::info!("{}", fast.summary());
        }
        let mut installed = self.host.take_rules();
        let removed = installed.as_mut().map_or(Ok(()), Installed::remove);
        if !self.drain() {
            log::warn!("packets still wait in our queues after {DRAIN_DEADLINE:?}; they are dropped");
        }
        // No packet gets a mark any more: those that waited have their verdicts, or are dropped with their queue.
        self.host.remove_routes();
        self.report();
        await_end(self.children.dismiss());
        // The queues are closed before the last hooks go: unregistering a hook flushes every queue that still exists.
        drop(self.children.workers);
        for note in installed.map(Installed::tidy).unwrap_or_default() {
            log::warn!("{note}");
        }
        log::info!("ended");
        Ok(removed?)
    }

    /// Waits until no packet waits. Workers still change over or are started again: somebody must answer what waits.
    fn drain(&mut self) -> bool {
        let deadline = Instant::now() + DRAIN_DEADLINE;
        loop {
            let is_ours = |state: &QueueState| self.fixed.queues.contains(&state.queue);
            let waiting =
                queue_owners().is_ok_and(|queues| queues.iter().any(|state| is_ours(state) && state.waiting > 0));
            if !waiting {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            for problem in
                [self.start_children(), self.poll_once(Instant::now() + PAUSE)].into_iter().filter_map(Result::err)
            {
                log::error!("{problem}");
            }
            self.log_deaths();
        }
    }
}

/// Waits for processes to end by themselves, and kills those that are late.
fn await_end(mut processes: Vec<Process>) {
    let deadline = Instant::now() + DISMISS_DEADLINE;
    for process in &mut processes {
        while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
        if matches!(process.try_wait(), Ok(None)) {
            // Its death is certain now, so waiting for it does not take long.
            let _ = process.kill();
        }
        match process.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => log::error!("child with pid {} was told to end: {status}", process.id()),
            Err(error) => log::error!("wait for pid {}: {error}", process.id()),
        }
    }
}
