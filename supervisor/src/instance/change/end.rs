//! What an instance does when it is told to end: it waits until its clients have another balancer, and goes.

use super::soft_stop::{Over, QUIET, SoftStop};
use crate::Error;
use crate::instance::Instance;
use crate::instance::host::others;
use crate::instance::watch::Watch;
use crate::process::daemon;
use loaded_control::Reply;
use loaded_host::own_addresses;
use loaded_ipc::{Mode, Outcome};
use loaded_netfilter::Installed;
use loaded_queue::{QueueState, queue_owners};
use sd_notify::NotifyState;
use std::process::Child as Process;
use std::time::{Duration, Instant};

/// How long packets that still wait may take to be answered once the rules are gone.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3);
/// How long a child may take to end once it is told to: a worker looks every 50 ms.
const DISMISS_DEADLINE: Duration = Duration::from_secs(1);
/// What the end itself takes at most, with a margin.
const END_TAKES: Duration = Duration::from_secs(5);
/// How often something is looked at that no descriptor announces.
const PAUSE: Duration = Duration::from_millis(5);

impl Instance {
    /// TERM, INT or QUIT. Whether to end now: at the second one, or if nothing is to be waited for.
    pub(in crate::instance) fn is_told_to_end(&mut self) -> bool {
        let hold = Duration::from_secs(self.current.plan.stop_hold.into());
        if self.soft_stop.is_some() || hold.is_zero() {
            return true;
        }
        let stop = self.begin_soft_stop(hold, false);
        // Nothing here could leave, and nobody here would answer with resets.
        if stop.waits_for_nothing() {
            return true;
        }
        daemon::notify(NotifyState::Stopping);
        daemon::notify(NotifyState::ExtendTimeoutUsec(
            u32::try_from((hold + END_TAKES).as_micros()).unwrap_or(u32::MAX),
        ));
        self.enter_soft_stop(stop);
        false
    }

    /// `loaded drain`.
    pub(in crate::instance) fn drain_whole(&mut self, deadline: Option<u32>) -> Reply {
        if self.is_changing() {
            return Reply::error("the configuration or the binary is being changed; try again in a moment");
        }
        let time = Duration::from_secs(deadline.unwrap_or(self.current.plan.drain).into());
        let stop = self.begin_soft_stop(time, true);
        let text = stop.text();
        self.enter_soft_stop(stop);
        Reply::Done { lines: vec![text] }
    }

    /// `loaded drain --cancel`.
    pub(in crate::instance) fn cancel_drain(&mut self) -> Reply {
        if self.soft_stop.take().is_none() {
            return Reply::error("this instance is not about to end");
        }
        self.survey.due = Instant::now();
        log::info!(event = "instance"; "told to stay: it no longer ends when its clients have another balancer");
        Reply::Done { lines: vec!["this instance stays".to_owned()] }
    }

    fn begin_soft_stop(&self, time: Duration, ends_when_quiet: bool) -> SoftStop {
        let services = &self.current.plan.services;
        let vips = services.iter().flat_map(|service| service.vips.iter().copied());
        let is_routed = services.iter().any(|service| service.mode == Mode::Dsr);
        SoftStop::new(vips, &own_addresses(), time, (ends_when_quiet, is_routed))
    }

    fn enter_soft_stop(&mut self, stop: SoftStop) {
        log::info!(event = "instance"; "{}", stop.text());
        self.soft_stop = Some(stop);
        // The verdict must be known before anybody asks for it.
        self.survey.due = Instant::now();
    }

    /// Whether an instance that was told to end has nothing to wait for any more.
    pub(in crate::instance) fn is_soft_stop_over(&mut self) -> bool {
        let Some(stop) = &mut self.soft_stop else { return false };
        let requests = [Outcome::Forwarded, Outcome::ForwardedNew].map(|outcome| self.children.sum(outcome.index()));
        let Some(over) = stop.over(Instant::now(), &own_addresses(), requests.iter().sum()) else { return false };
        match over {
            Over::Moved => log::info!("the VIPs have left this host: ending"),
            Over::Quiet => log::info!("no client has sent anything for {} s: ending", QUIET.as_secs()),
            Over::Late(left) if left.is_empty() => log::info!("time is up: ending"),
            Over::Late(left) => {
                let left: Vec<_> = left.iter().map(ToString::to_string).collect();
                log::warn!(
                    "time is up and VIPs are still addresses of this host: {}; it answers their packets with resets from now on",
                    left.join(", ")
                );
            }
        }
        true
    }
}

impl Instance {
    /// Removes the rules, lets the workers answer the packets that still wait, and ends the children.
    ///
    /// # Errors
    /// If the rules cannot be removed.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        self.stop_upgrade();
        // What is removed from now on is removed by us.
        self.watch = Watch::new();
        self.host.end_kernel_path(self.current.plan.queue_base);
        if let Some(fast) = &self.host.fast {
            log::info!("{}", fast.summary());
        }
        let mut installed = self.host.take_rules();
        let others = installed.as_ref().map_or_else(Vec::new, others);
        let removed = installed.as_mut().map_or(Ok(()), Installed::remove);
        if !self.drain() {
            log::warn!("packets still wait in our queues after {DRAIN_DEADLINE:?}; they are dropped");
        }
        // No packet gets a mark any more: those that waited have their verdicts, or are dropped with their queue.
        self.host.remove_routes();
        self.host.settings.put_back(&others);
        self.report();
        await_end(self.children.dismiss());
        // The queues are closed before the last hooks go: unregistering a hook flushes every queue that still exists.
        drop(self.children.workers);
        for note in installed.map(Installed::tidy).unwrap_or_default() {
            log::warn!("{note}");
        }
        log::info!(event = "instance"; "ended");
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
