//! Notes on services whose connections end when a second balancer takes over, where the file shows that there is one.

use super::draft::{Draft, DraftService};
use super::location::Flaw;
use loaded_ipc::{Mode, Strategy};

/// One for each service that chooses by what only this balancer knows, or whose backends' packets the other one lets pass, if the
/// balancer is to wait at its end for another one.
pub(super) fn notes(draft: &Draft) -> Vec<Flaw> {
    if draft.stop_hold.is_none_or(|seconds| seconds == 0) {
        return Vec::new();
    }
    draft.services.iter().filter_map(|service| chooses_by_turn(service).or_else(|| adopts_nothing(service))).collect()
}

fn chooses_by_turn(service: &DraftService) -> Option<Flaw> {
    let (name, strategy) = (&service.name, service.strategy);
    let text = format!(
        "with strategy {strategy} most connections of service {:?} end when another balancer takes over: that one chooses other \
         backends; to avoid that, write strategy = \"maglev\" on both",
        name.value
    );
    (!matches!(strategy, Strategy::Maglev { .. })).then(|| name.flaw(text))
}

/// A download has a backend that speaks and a client that has nothing to say.
fn adopts_nothing(service: &DraftService) -> Option<Flaw> {
    let name = &service.name;
    let pairs = || service.vips.iter().enumerate().flat_map(|(n, vip)| service.vips[..n].iter().map(move |v| (v, vip)));
    let why = match pairs().find(|(one, other)| one.value.is_ipv4() == other.value.is_ipv4()) {
        _ if service.mode == Mode::Dsr => return None,
        _ if !service.policy.adopt => {
            "its backends' packets pass there under their own addresses (adopt is off); to avoid that, name its protocol and ports, \
             and leave adopt out"
                .to_owned()
        }
        Some((one, other)) => format!(
            "nothing tells there which of {} and {} they belong to; to avoid that, make a service of each VIP, with backend \
             addresses or ports of its own",
            one.value, other.value
        ),
        None => return None,
    };
    let text = format!("downloads from service {:?} end when another balancer takes over: {why}", name.value);
    Some(name.flaw(text))
}
