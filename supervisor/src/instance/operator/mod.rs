//! The operator's side of an instance: the control socket and that of monitors, the history, the results of what was asked
//! for, and what is answered later: changes at run time, questions that wait for a worker's answer, and searches for flows.
//!
//! - `requests`, `amend`, `explain` (over `explanation`), `flows` (over `flow_search`), `status`, `report`: what the operator
//!   asks for.
//! - `exports`: what the exporter shows.

mod amend;
mod explain;
mod explanation;
mod exports;
mod flow_search;
mod flows;
mod report;
mod requests;
mod status;

use flow_search::FlowSearch;
use loaded_config::Order;
use loaded_control::live::Live;
use loaded_control::{By, Control, EndedFlows, Event, History, Reply, Tuple, unix_ms};
use std::collections::VecDeque;
use std::time::{Instant, SystemTime};

/// The operator's side of an instance.
#[derive(Debug)]
pub(crate) struct Operator {
    /// `None` while a request is answered, while a predecessor still has the socket, and if it could not be taken over.
    pub(crate) control: Option<Control>,
    /// The socket of those who may only read, if there is a group of them.
    pub(crate) monitors: Option<Control>,
    pub(crate) history: History,
    pub(crate) last_reload: Option<LastReload>,
    /// When the last upgrade failed, and why.
    pub(crate) refused_upgrade: Option<(SystemTime, String)>,
    pub(crate) questions: OpenQuestions,
    pub(crate) orders: PendingAmendments,
    /// Searches for flows. The first goes on next.
    pub(crate) searches: VecDeque<FlowSearch>,
    /// Flows that are being ended.
    pub(crate) ending: Option<OpenEnding>,
    /// What the status page compares with.
    pub(crate) live: Live,
}

/// How the last reload that the operator asked for ended.
#[derive(Debug, Clone)]
pub(crate) struct LastReload {
    pub(crate) at: SystemTime,
    pub(crate) ok: bool,
    pub(crate) text: String,
}

/// Questions (`loaded explain`) that wait for a worker's answer.
#[derive(Debug, Default)]
pub(crate) struct OpenQuestions {
    /// Number of the last request that is answered later.
    pub(crate) last: u32,
    pub(crate) waiting: Vec<OpenQuestion>,
}

/// Changes at run time that were ordered and are not in force yet. A reply by its number is owed for each.
#[derive(Debug, Default)]
pub(crate) struct PendingAmendments {
    /// They wait for a change that is under way.
    pub(crate) waiting: Vec<(u32, Order)>,
    /// Workers with them are being prepared, or take over.
    pub(crate) begun: Vec<u32>,
}

/// An order to end flows that workers carry out.
#[derive(Debug)]
pub(crate) struct OpenEnding {
    pub(crate) id: u32,
    pub(crate) deadline: Instant,
    /// Positions of the workers that have not said how many yet.
    pub(crate) waiting: Vec<u16>,
    pub(crate) done: EndedFlows,
    /// Which flows, in words.
    pub(crate) which: String,
}

/// A question that waits for a worker's answer.
#[derive(Debug)]
pub(crate) struct OpenQuestion {
    pub(crate) id: u32,
    pub(crate) tuple: Tuple,
    /// Position of the worker that was asked.
    pub(crate) worker: u16,
    pub(crate) deadline: Instant,
}

impl Operator {
    pub(crate) fn new(control: Option<Control>, history: History) -> Self {
        let questions = OpenQuestions::default();
        let (orders, searches, ending) = (PendingAmendments::default(), VecDeque::new(), None);
        let live = Live::default();
        let monitors = None;
        Self {
            control,
            monitors,
            history,
            last_reload: None,
            refused_upgrade: None,
            questions,
            orders,
            searches,
            ending,
            live,
        }
    }

    /// A number for a request that is answered later.
    pub(crate) fn next_number(&mut self) -> u32 {
        self.questions.last = self.questions.last.wrapping_add(1);
        self.questions.last
    }

    /// The sockets on which somebody may ask.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = &Control> {
        self.control.iter().chain(&self.monitors)
    }

    /// Makes the socket of those who may only read, or takes it away, as `group` says.
    pub(crate) fn open_for(&mut self, group: Option<&str>) {
        let path = self.control.as_ref().map(|control| control.path().to_owned());
        let is_there = self.monitors.as_ref().and_then(Control::group) == group;
        let (Some(path), false) = (path, is_there) else { return };
        // Its name has to be free.
        self.monitors = None;
        let opened = group.map(|group| Control::for_monitors(&path, group)).transpose();
        self.monitors = opened.unwrap_or_else(|error| {
            log::error!("{error}; nobody but root can ask until a reload");
            None
        });
    }

    /// Delivers a reply that was promised.
    pub(crate) fn settle(&mut self, number: u32, reply: &Reply) {
        for control in self.control.iter_mut().chain(&mut self.monitors) {
            control.settle(Instant::now(), number, reply);
        }
    }

    /// Notes an event of the whole instance in the history.
    pub(crate) fn record(&mut self, what: String, cause: String, by: By) {
        let at = unix_ms(SystemTime::now());
        self.history.push(Event { at, service: None, address: None, port: None, what, cause, by });
    }

    /// Notes a kill by the sandbox in the history: a security event must be found after the log has scrolled by.
    pub(crate) fn record_security_event(&mut self, what: String, cause: String) {
        self.record(what, cause, By::Kernel);
    }

    /// Notes in log and history how a reload ended.
    pub(crate) fn conclude_reload(&mut self, ok: bool, text: String) {
        match ok {
            true => log::info!(event = "configuration"; "reload: {text}"),
            // One line for each mistake of a file.
            false => text.lines().for_each(|line| {
                log::error!(event = "configuration"; "reload refused, everything stays as it is: {line}");
            }),
        }
        self.last_reload = Some(LastReload { at: SystemTime::now(), ok, text });
    }

    /// Notes in log and status why an upgrade failed.
    pub(crate) fn refuse_upgrade(&mut self, why: String) {
        log::error!(event = "instance"; "upgrade refused, everything stays as it is: {why}");
        self.refused_upgrade = Some((SystemTime::now(), why));
    }

    /// When something is to be done that no descriptor announces.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        let questions = self.questions.waiting.iter().map(|question| question.deadline);
        let searches = self.searches.front().map(|_| Instant::now());
        let ending = self.ending.iter().map(|ending| ending.deadline);
        questions.chain(searches).chain(ending).chain(self.sockets().filter_map(Control::next_deadline))
    }
}
