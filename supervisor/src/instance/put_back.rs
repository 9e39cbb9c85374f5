//! Puts back what somebody else has removed of what this instance has installed on the host: rules, and routes of mode
//! "dsr".

use super::Instance;
use super::watch::{AGAIN, DELAY, OFTEN, WINDOW};
use loaded_config::plan::HostPolicy;
use loaded_control::By;
use loaded_netfilter::Missing;
use std::time::Instant;

impl Instance {
    /// Begins to watch, once the rules are installed.
    pub(super) fn begin_watch(&mut self) {
        self.watch.begin(self.host.is_nft());
        // Before that nothing was announced.
        self.firewall.expect_look(Instant::now());
        self.survey.host.note_change();
    }

    /// Looks at rules and routes if something may have happened to them, and puts back what is missing.
    pub(super) fn watch(&mut self) {
        let now = Instant::now();
        let heard = self.watch.hear(now);
        if heard.may_lose_routes {
            self.survey.routes_due = self.survey.routes_due.min(now + DELAY);
        }
        if heard.of_host {
            self.survey.host.note_change();
            self.survey.neighbours.note_change();
            self.survey.kernel_path_due = self.survey.kernel_path_due.min(now + DELAY);
            self.survey.ways_due = self.survey.ways_due.min((now + DELAY).max(self.survey.ways_rest_until));
        }
        if heard.rules || heard.addresses {
            self.firewall.expect_look(now);
        }
        if self.watch.due.is_none_or(|due| due > now) || self.phase.has_given_way() {
            return;
        }
        self.watch.due = None;
        match self.host.missing_rules() {
            Ok(missing) if missing.is_empty() => self.watch.missing.clear(),
            // A successor that prepares may have written its own.
            Ok(missing) if self.phase.successor().is_some() && !missing.iter().any(Missing::is_everything) => {}
            Ok(missing) => self.put_rules_back(&missing, now),
            Err(error) => self.watch_again(error.to_string(), now),
        }
    }

    /// Writes what the host lacks and the configuration lets us write, or puts back what it does not want written any more. A
    /// successor does it itself.
    pub(super) fn settle_host(&mut self, now: Instant) {
        if self.phase.successor().is_some() {
            return;
        }
        let done = match self.current.plan.host {
            HostPolicy::Set => {
                let noted = self.host.settings.note(self.survey.host.found(), now);
                if noted.is_empty() {
                    return;
                }
                // Whoever comes after a kill has to know what was there.
                self.write_snapshot();
                self.host.settings.write(&noted)
            }
            HostPolicy::Tell if self.host.settings.written().is_empty() => return,
            HostPolicy::Tell => self.host.put_settings_back(),
        };
        for text in done {
            self.operator.record("host settings".to_owned(), text, By::Kernel);
        }
        self.recorder.set_outdated();
        self.survey.host.look_again(now, &self.current.plan, self.current.roster.generation());
    }

    fn put_rules_back(&mut self, missing: &[Missing], now: Instant) {
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        let by = match self.watch.by.take() {
            Some((name, pid)) => format!("removed by {name}, pid {pid}"),
            None => "removed by another program".to_owned(),
        };
        let what = format!("{} {by}", missing.join(", "));
        match self.host.put_rules_back() {
            Ok(()) => {
                self.watch.missing.clear();
                self.watch.trouble = None;
                // What we have changed ourselves is looked at once more, for somebody may have been in between; but it is
                // nobody else's work.
                if self.watch.hear(now).rules {
                    self.firewall.expect_look(now);
                }
                self.watch.by = None;
                self.note_put_back(what, now);
            }
            Err(error) => {
                self.watch.missing = missing;
                self.watch_again(format!("{what}, and cannot be put back: {error}"), now);
            }
        }
    }

    fn watch_again(&mut self, trouble: String, now: Instant) {
        self.watch.due = Some(now + AGAIN);
        if self.watch.trouble.as_ref() != Some(&trouble) {
            log::error!("rules: {trouble}; to be tried again");
            self.operator.record("rules missing".to_owned(), trouble.clone(), By::Kernel);
            self.recorder.set_outdated();
        }
        self.watch.trouble = Some(trouble);
    }

    /// Tells that rules were put back; if that happens often, once in a while.
    fn note_put_back(&mut self, what: String, now: Instant) {
        let watch = &mut self.watch;
        watch.put_back += 1;
        watch.recent.retain(|at| now.duration_since(*at) < WINDOW);
        watch.recent.push_back(now);
        let times = watch.recent.len();
        if times < OFTEN {
            log::warn!("rules put back: {what}");
            self.operator.record("rules put back".to_owned(), what, By::Kernel);
        } else if watch.warned.is_none_or(|at| now.duration_since(at) >= WINDOW) {
            watch.warned = Some(now);
            let again = format!("rules put back {times} times within {WINDOW:?}: somebody keeps removing them");
            log::error!(
                "{again}: {what}; they are put back within a second each time, and no packet is balanced until then; stop \
                 that program, or have it leave the chains LOADED-{} alone",
                self.current.plan.queue_base
            );
            self.operator.record(again, what, By::Kernel);
        }
        self.recorder.set_outdated();
    }

    /// Puts back what is missing, for an operator has asked for it. Returns what it was, a line for each family.
    ///
    /// # Errors
    /// If rules cannot be read or written.
    pub(super) fn write_missing_rules(&mut self) -> Result<Vec<String>, crate::Error> {
        let missing: Vec<_> = self.host.missing_rules()?.iter().map(ToString::to_string).collect();
        if !missing.is_empty() {
            self.host.put_rules_back()?;
            self.watch.missing.clear();
        }
        Ok(missing)
    }
}
