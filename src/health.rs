//! `loaded health`: one word and an exit code, for VRRP and BGP scripts.

use crate::cli::HealthLine;
use loaded_control::text::plain;
use loaded_control::{AskError, Health, InstanceVerdict, Reply, Request, Status, ask_within};
use loaded_queue::{queue_owner, queue_owners};
use std::path::Path;
use std::time::Duration;

/// Scripts run every second or two.
const WAIT: Duration = Duration::from_secs(1);
const STRANGE: &str = "the answer does not fit the question: is the instance of another version?\n";
/// Exit code if nobody answers.
const NO_ANSWER: i32 = 3;

/// What is to be printed, and the exit code.
pub(crate) fn examine(socket: Option<&Path>, line: &HealthLine) -> (String, i32) {
    match ask_within(socket, &Request::Health, WAIT) {
        Ok(Reply::Health(health)) => answer(&health, line),
        Ok(_) => (STRANGE.to_owned(), NO_ANSWER),
        Err(error) => without_answer(&error, orphan().as_deref()),
    }
}

/// `loaded status --exit-code`: the status as `shown`, and the verdict's exit code.
///
/// # Errors
/// If the status cannot be shown.
pub(crate) fn of_status<E>(
    socket: Option<&Path>,
    shown: impl FnOnce(&Status) -> Result<String, E>,
) -> Result<(String, i32), E> {
    match ask_within(socket, &Request::Status, WAIT) {
        Ok(Reply::Status(status)) => {
            // An older instance has no verdict.
            let code = status.verdict.map_or(NO_ANSWER, InstanceVerdict::exit_code);
            shown(&status).map(|text| (text, code))
        }
        Ok(_) => Ok((STRANGE.to_owned(), NO_ANSWER)),
        Err(error) => Ok(without_answer(&error, orphan().as_deref())),
    }
}

fn answer(health: &Health, line: &HealthLine) -> (String, i32) {
    let Some(verdict) = health.verdict_of(line.service.as_deref(), line.min_up) else {
        let name = line.service.as_deref().unwrap_or_default();
        return (format!("there is no service {name:?}; loaded status lists them\n"), NO_ANSWER);
    };
    if line.json
        && let Ok(json) = serde_json::to_string_pretty(&Health { verdict, ..health.clone() })
    {
        return (plain(&format!("{json}\n")), verdict.exit_code());
    }
    let mut text = format!("{verdict}\n");
    if verdict != InstanceVerdict::Serving {
        text.extend(health.causes().map(|cause| format!("! {}\n", plain(&cause).replace('\n', " "))));
        let few = health.services.iter().filter(|s| line.service.as_ref().is_none_or(|name| *name == s.name));
        let few = few.filter(|service| service.up < line.min_up);
        text.extend(
            few.map(|s| format!("! service {}: {} backends up, {} demanded\n", plain(&s.name), s.up, line.min_up)),
        );
    }
    (text, verdict.exit_code())
}

/// A dead supervisor is no dead service: its workers serve by what they were told last. What they lack is told, and who
/// decides by the exit code has no reason to move the VIP.
fn without_answer(error: &AskError, orphan: Option<&str>) -> (String, i32) {
    match orphan {
        Some(worker) => {
            let text = format!(
                "{}\n! the supervisor does not answer, its workers go on ({worker}): nobody checks backends, replaces workers or \
                 puts rules back: systemctl restart loaded\n",
                InstanceVerdict::Impaired
            );
            (text, InstanceVerdict::Impaired.exit_code())
        }
        None => (format!("no answer: {}\n", plain(&error.to_string())), NO_ANSWER),
    }
}

/// A worker that holds a queue of this network namespace.
fn orphan() -> Option<String> {
    let queues = queue_owners().ok()?.into_iter();
    let mut owners = queues.filter_map(|state| queue_owner(state.queue).ok().flatten());
    owners.find(|owner| owner.contains("(loaded-worker)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_supervisor_is_told_from_a_dead_service() {
        let error = AskError::NoInstance("/run/loaded".into());
        assert_eq!(without_answer(&error, None).1, 3);
        let (text, code) = without_answer(&error, Some("pid 7 (loaded-worker)"));
        assert!(code == 1 && text.contains("pid 7"), "{text}");
    }
}
