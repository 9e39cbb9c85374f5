//! `loaded drain`: has the instance end once its clients have another balancer, and waits for that.

use crate::cli::DrainLine;
use crate::{UNASKED, joined, say};
use loaded_control::{AskError, ConditionStatus, Reply, Request, ask};
use std::path::Path;
use std::time::Duration;

/// Time between two looks at the instance.
const EVERY: Duration = Duration::from_millis(200);

/// Says what happens, and returns the exit code: 0 when the instance has ended, 1 if it stays.
///
/// # Errors
/// If there is no instance, or it refuses.
pub(crate) fn drain(socket: Option<&Path>, line: &DrainLine) -> Result<i32, Box<dyn std::error::Error>> {
    let Reply::Done { lines } = ask(socket, &Request::Drain { deadline: line.deadline })? else {
        return Err(UNASKED.into());
    };
    say(&joined(&lines));
    loop {
        std::thread::sleep(EVERY);
        match ask(socket, &Request::Health) {
            Ok(Reply::Health(health))
                if health.conditions.iter().all(|condition| condition.name != ConditionStatus::ENDING) =>
            {
                return Ok(say("cancelled: the instance stays\n").max(1));
            }
            Ok(Reply::Health(_)) => {}
            Ok(_) => return Err(UNASKED.into()),
            // It ends, or has ended.
            Err(AskError::NoInstance(_) | AskError::Closed(_)) => return Ok(say("it has ended\n")),
            Err(error) => return Err(error.into()),
        }
    }
}
