//! What runs already: what the instance says of itself, its rules, and who has the queues.

use super::finding::{Finding, fatal, sound, unseen, warning};
use loaded_config::plan::Plan;
use loaded_control::{InstanceVerdict, Reply, Request, ask_within};
use loaded_netfilter::{Tools, unhooked};
use loaded_queue::queue_owners;
use loaded_supervisor::run::Options;
use nix::unistd::geteuid;
use std::time::Duration;

/// How long the running instance may take to answer.
const INSTANCE_WAIT: Duration = Duration::from_secs(1);

/// What the running instance says of itself, if one answers.
pub(super) fn instance(options: &Options) -> Option<Finding> {
    let Ok(Reply::Health(health)) = ask_within(options.control.as_deref(), &Request::Health, INSTANCE_WAIT) else {
        return None;
    };
    let causes = health.causes().collect::<Vec<_>>().join("; ");
    let beside = health.conditions.iter().find(|condition| condition.name == "clients_beside");
    Some(match health.verdict {
        InstanceVerdict::Serving => match beside {
            Some(told) => warning("instance", format!("the one that runs serves, but {told}")),
            None => sound("instance", "the one that runs serves"),
        },
        InstanceVerdict::Impaired => warning("instance", format!("the one that runs is impaired: {causes}")),
        InstanceVerdict::NotServing => fatal("instance", format!("the one that runs does not serve: {causes}")),
    })
}

/// Whether the rules of an instance that serves by this plan are there.
pub(super) fn rules(plan: &Plan, queues: &[u16]) -> Option<Finding> {
    let owned = queue_owners().ok()?.iter().any(|state| queues.contains(&state.queue));
    if !owned || !geteuid().is_root() {
        return None;
    }
    let vips = plan.services.iter().flat_map(|service| service.vips.iter().copied()).collect();
    Some(match unhooked(&Tools::find().ok()?, plan.queue_base, &vips) {
        Ok(missing) if missing.is_empty() => sound("rules", "bring packets to the queues"),
        Ok(missing) => fatal(
            "rules",
            format!(
                "workers run, but packets do not reach them: rules are missing ({}); a running supervisor puts them back within \
                 two seconds, and if it was killed a start does: systemctl restart loaded",
                missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
        ),
        Err(error) => unseen("rules", error),
    })
}

/// Whether our queues are free.
pub(super) fn queues(wanted: &[u16]) -> Option<Finding> {
    if !geteuid().is_root() {
        return Some(unseen("queues", "only root can see who answers them"));
    }
    let states = queue_owners().ok()?;
    let taken: Vec<_> = states.iter().filter(|state| wanted.contains(&state.queue)).collect();
    Some(match taken.first() {
        None => sound("queues", "are free"),
        Some(state) => warning(
            "queues",
            format!(
                "queue {} is in use already: by this service if it is running, or by workers whose supervisor was \
                 killed (start loaded: it takes them over); a second service needs another --queue-base",
                state.queue
            ),
        ),
    })
}
