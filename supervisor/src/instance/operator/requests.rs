//! What the operator asks for on the control socket.

use crate::instance::Instance;
use loaded_config::marked;
use loaded_config::plan::diff;
use loaded_control::{Action, Answer, By, Reply, Request};
use loaded_ipc::{Admin, BackendCounter, BackendIndex, Destination};
use std::path::PathBuf;
use std::time::{Duration, Instant};

impl Instance {
    /// Serves the control socket and that of monitors, one request of each at a time.
    pub(in crate::instance) fn serve_control_socket(&mut self) {
        // The socket is taken out, so that a reply can read everything else.
        if let Some(mut control) = self.operator.control.take() {
            control.serve(Instant::now(), |request| self.reply(request));
            self.operator.control = Some(control);
        }
        if let Some(mut monitors) = self.operator.monitors.take() {
            monitors.serve(Instant::now(), |request| self.reply(request));
            self.operator.monitors = Some(monitors);
        }
    }

    /// Lets the group of the configuration ask what changes nothing, on a socket of its own.
    pub(in crate::instance) fn open_for_monitors(&mut self) {
        self.operator.open_for(self.current.plan.monitor_group.as_deref());
    }

    fn reply(&mut self, request: Request) -> Answer {
        let reply = match request {
            Request::Status => Reply::Status(Box::new(self.status())),
            Request::Health => Reply::Health(Box::new(self.survey.health.clone())),
            Request::History { last } => Reply::History(self.operator.history.last(last)),
            Request::Backend { action, address, port, service } => {
                self.change_backend(action, Destination { address, port }, service.as_deref())
            }
            Request::Drain { deadline } => self.drain_whole(deadline),
            Request::CancelDrain => self.cancel_drain(),
            Request::Diff { files } => self.difference(files),
            Request::Config => Reply::Config { text: marked(&self.current.plan, &self.current.amendments) },
            Request::Amend { service, act, address, port } => {
                return self.order(service, act, Destination { address, port });
            }
            Request::Unsaved => self.unsaved(),
            Request::Reload => self.reload(),
            Request::Explain(tuple) => return self.explain(tuple),
            Request::Flows(query) => return self.begin_search(query),
            Request::EndFlows(query) => return self.end_flows(query),
        };
        reply.into()
    }

    fn change_backend(&mut self, action: Action, named: Destination, service: Option<&str>) -> Reply {
        let now = Instant::now();
        let (wish, until, what) = match action {
            Action::Drain { deadline } => {
                let time = deadline.map_or(self.current.roster.drain(), |seconds| Duration::from_secs(seconds.into()));
                (Admin::Draining, now.checked_add(time), format!("draining for {} s", time.as_secs()))
            }
            Action::Enable => (Admin::Enabled, None, "enabled".to_owned()),
            Action::Disable => (Admin::Disabled, None, "disabled".to_owned()),
        };
        let meant = self.current.roster.wish(named, service, wish, until);
        if meant.is_empty() {
            return Reply::error(match service {
                Some(name) => format!("service {name:?} has no backend {named}; loaded status shows what there is"),
                None => format!("no service has a backend {named}; loaded status shows what there is"),
            });
        }
        self.tell_wishes(now);
        let mut lines = Vec::new();
        for index in meant {
            let Some(backend) = self.current.roster.backend(index) else { continue };
            let (number, backend) = (backend.service, backend.destination());
            let name = self.current.roster.service(number).map_or("?", |entry| entry.service.name.as_str());
            lines.push(format!("service {name}: backend {backend} is {what}"));
            self.note(number, Some(backend), what.clone(), "asked for".to_owned(), By::Operator);
        }
        self.note_conditions(By::Operator);
        Reply::Done { lines }
    }

    /// What a reload of these files would do.
    fn difference(&mut self, files: Vec<PathBuf>) -> Reply {
        let files = if files.is_empty() { self.fixed.options.config.clone() } else { files };
        let loaded = match self.next_plan(&files) {
            Ok(loaded) => loaded,
            Err(error) => return Reply::error(format!("a reload would be refused: {error}")),
        };
        let missing = match self.host.missing_rules() {
            Ok(missing) => missing,
            Err(error) => return Reply::error(format!("a reload would be refused: {error}")),
        };
        let mut lines: Vec<_> =
            missing.iter().map(|what| format!("rules: {what} missing in the kernel: would be put back")).collect();
        let changes = diff(&self.current.plan, &loaded.plan);
        lines.extend(loaded.forgotten);
        if changes.is_empty() {
            return Reply::Diff { lines };
        }
        lines.extend(changes.iter().map(ToString::to_string));
        lines.push(self.effect_on_flows(&loaded.plan));
        Reply::Diff { lines }
    }

    /// What a reload would do to the flows: none moves, but those on backends that are removed have to end.
    fn effect_on_flows(&self, plan: &loaded_config::plan::Plan) -> String {
        let Ok(next) = self.current.roster.next(plan, &[], u64::MAX, Instant::now()) else {
            return "too much would leave at once; try again in a minute".to_owned();
        };
        let flows = |index: BackendIndex| self.children.count(index, BackendCounter::Flows);
        let leaving = next.backends().filter(|(_, backend)| backend.leaves.is_some());
        let (leave, all) = (
            leaving.map(|(index, _)| flows(index)).fold(0, u64::saturating_add),
            self.current.roster.backends().map(|(index, _)| flows(index)).fold(0, u64::saturating_add),
        );
        format!(
            "flows: {all} now; {leave} of them are on backends that would leave: they go on for up to {} s, then they are \
             ended; the others stay where they are",
            plan.drain
        )
    }
}
