//! Requests and replies. As JSON: `"status"`, `{"history":{"last":20}}`,
//! `{"backend":{"action":"enable","address":"198.51.100.11","service":null}}`; `{"error":{"text":"…"}}`.

use super::{EndedFlows, Event, Explanation, FlowList, FlowQuery, Health, MAX_REQUEST, Status, Tuple};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// What an operator asks of a running instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The full status. Answered by [`Reply::Status`].
    Status,
    /// Whether it serves, and why not. Answered by [`Reply::Health`].
    Health,
    /// The last changes of membership, oldest first. Answered by [`Reply::History`].
    History {
        /// At most this many.
        last: usize,
    },
    /// Drain, enable or disable a backend. Answered by [`Reply::Done`].
    Backend {
        /// What to do with it.
        action: Action,
        /// Its address.
        address: IpAddr,
        /// Its port; `None`: whatever its port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// In this service only; `None`: in every service that has it.
        service: Option<String>,
    },
    /// Add a backend, remove one, or change its weight, until a file says otherwise. Answered by [`Reply::Done`] once workers
    /// serve by that.
    Amend {
        /// Its service.
        service: String,
        /// What to do with it.
        act: AmendAction,
        /// Its address.
        address: IpAddr,
        /// Its port. `None`: to add, the service's; else the one backend at that address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
    /// What was changed at run time and stands in no file. Answered by [`Reply::Unsaved`].
    Unsaved,
    /// Read the files again, as HUP does. Answered by [`Reply::Done`].
    Reload,
    /// Serve on until clients have another balancer, and end. Answered by [`Reply::Done`].
    Drain {
        /// Seconds after which it ends whatever clients do; `None`: as the configuration says for backends.
        deadline: Option<u32>,
    },
    /// Stay after all. Answered by [`Reply::Done`].
    CancelDrain,
    /// What a reload would change. Answered by [`Reply::Diff`].
    Diff {
        /// Absolute paths; empty: the files the instance was started with.
        files: Vec<PathBuf>,
    },
    /// The configuration in force. Answered by [`Reply::Config`].
    Config,
    /// What would become of a client's next packet. Answered by [`Reply::Explained`].
    Explain(Tuple),
    /// Flows that workers know now. Answered by [`Reply::Flows`].
    Flows(FlowQuery),
    /// End these flows; `limit` does not matter. Answered by [`Reply::Ended`].
    EndFlows(FlowQuery),
}

/// What to do with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// No new flows; existing ones go on until the deadline.
    Drain {
        /// Seconds; `None`: as the configuration says.
        deadline: Option<u32>,
    },
    /// Use it as the checks say.
    Enable,
    /// No flows.
    Disable,
}

/// What to change of a service's backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AmendAction {
    /// A new backend.
    Add {
        /// Its share; `None`: 1, or what the file gives it if it was removed at run time.
        weight: Option<u16>,
        /// Whether it is a backup.
        backup: bool,
    },
    /// A backend less. Its flows go on until the configuration's drain is over.
    Remove,
    /// This share.
    Weight(u16),
}

/// What the instance answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Health`].
    Health(Box<Health>),
    /// To [`Request::History`]; oldest first.
    History(Vec<Event>),
    /// It was done.
    Done {
        /// What was done, for the operator.
        lines: Vec<String>,
    },
    /// To [`Request::Diff`].
    Diff {
        /// One change a line; none: nothing would change.
        lines: Vec<String>,
    },
    /// To [`Request::Config`].
    Config {
        /// As a TOML file.
        text: String,
    },
    /// To [`Request::Unsaved`].
    Unsaved {
        /// What was changed, one change a line; none: nothing.
        lines: Vec<String>,
        /// The file that has to say so; `None`: nothing has to be changed.
        file: Option<FileChange>,
    },
    /// To [`Request::Explain`].
    Explained(Box<Explanation>),
    /// To [`Request::Flows`].
    Flows(Box<FlowList>),
    /// To [`Request::EndFlows`].
    Ended(EndedFlows),
    /// It was refused.
    Error {
        /// What is wrong, and what to do about it.
        text: String,
    },
}

/// A configuration file, as the instance has read it and as it would have to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Its absolute path.
    pub path: PathBuf,
    /// What it held.
    pub before: String,
    /// What it has to hold.
    pub after: String,
}

impl Reply {
    /// A refusal.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self::Error { text: text.into() }
    }
}

impl Request {
    /// Whether a monitor may ask it: it changes nothing, reads no file that it names, and tells nothing of the files.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        matches!(self, Self::Status | Self::Health | Self::History { .. } | Self::Explain(_) | Self::Flows(_))
    }

    /// Reads a request; `line` is without the newline that ended it.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        if line.len() > MAX_REQUEST {
            return Err(format!("the request is longer than {MAX_REQUEST} bytes"));
        }
        let request =
            serde_json::from_slice(line).map_err(|error| format!("the request is not understood: {error}"))?;
        if let Self::Diff { files } = &request
            && let Some(file) = files.iter().find(|file| !file.is_absolute())
        {
            return Err(format!("{} is not an absolute path", file.display()));
        }
        Ok(request)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_have_one_spelling() {
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        for (request, text) in [
            (Request::Status, r#""status""#),
            (Request::History { last: 20 }, r#"{"history":{"last":20}}"#),
            (
                Request::Explain(Tuple { protocol: 6, client: address, client_port: 7, vip: address, vip_port: 80 }),
                r#"{"explain":{"protocol":6,"client":"2001:db8::1","client_port":7,"vip":"2001:db8::1","vip_port":80}}"#,
            ),
            (
                Request::Flows(FlowQuery { client: Some((address, 64)), limit: 5, ..FlowQuery::default() }),
                r#"{"flows":{"client":["2001:db8::1",64],"backend":null,"port":null,"service":null,"state":null,"limit":5}}"#,
            ),
            (Request::Diff { files: vec!["/a".into()] }, r#"{"diff":{"files":["/a"]}}"#),
            (Request::Drain { deadline: Some(60) }, r#"{"drain":{"deadline":60}}"#),
            (Request::CancelDrain, r#""cancel_drain""#),
            (
                Request::Amend {
                    service: "web".to_owned(),
                    act: AmendAction::Add { weight: Some(3), backup: false },
                    address,
                    port: Some(8080),
                },
                r#"{"amend":{"service":"web","act":{"add":{"weight":3,"backup":false}},"address":"2001:db8::1","port":8080}}"#,
            ),
            (
                Request::Amend { service: "web".to_owned(), act: AmendAction::Weight(3), address, port: None },
                r#"{"amend":{"service":"web","act":{"weight":3},"address":"2001:db8::1"}}"#,
            ),
            (
                Request::Backend { action: Action::Enable, address, port: None, service: None },
                r#"{"backend":{"action":"enable","address":"2001:db8::1","service":null}}"#,
            ),
            (
                Request::Backend {
                    action: Action::Drain { deadline: Some(300) },
                    address,
                    port: Some(8080),
                    service: Some("web".to_owned()),
                },
                r#"{"backend":{"action":{"drain":{"deadline":300}},"address":"2001:db8::1","port":8080,"service":"web"}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(Request::parse(text.as_bytes()), Ok(request));
        }
    }

    #[test]
    fn what_is_not_a_request_is_refused() {
        for wrong in [
            "",
            "status",
            "{}",
            r#""status" x"#,
            r#""reboot""#,
            r#"{"history":{"last":-1}}"#,
            r#"{"history":{"last":1,"first":1}}"#,
            r#"{"diff":{"files":["relative"]}}"#,
            r#"{"explain":{"protocol":256,"client":"10.0.0.1","client_port":7,"vip":"10.0.0.2","vip_port":80}}"#,
            r#"{"explain":{"protocol":6,"client":"10.0.0.1","vip":"10.0.0.2"}}"#,
            r#"{"backend":{"action":"enable","address":"host.example","service":null}}"#,
        ] {
            assert!(Request::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let deep = "[".repeat(MAX_REQUEST);
        assert!(Request::parse(deep.as_bytes()).is_err(), "nesting is bounded, so is the stack");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&bytes);
        }
    }
}
