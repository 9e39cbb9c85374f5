//! Notes on services whose connections end when a second balancer takes over, where the file shows that there is one.

use super::draft::Draft;
use super::location::{At, Flaw};
use loaded_ipc::Strategy;

/// One for each service that chooses by what only this balancer knows, if the balancer is to wait at its end for another one.
pub(super) fn notes(draft: &Draft) -> Vec<Flaw> {
    if draft.stop_hold.is_none_or(|seconds| seconds == 0) {
        return Vec::new();
    }
    let by_turn = draft.services.iter().filter(|service| !matches!(service.strategy, Strategy::Maglev { .. }));
    let note = |name: &At<String>, strategy: Strategy| {
        name.flaw(format!(
            "with strategy {strategy} most connections of service {:?} end when another balancer takes over: that one \
             chooses other backends; to avoid that, write strategy = \"maglev\" on both",
            name.value
        ))
    };
    by_turn.map(|service| note(&service.name, service.strategy)).collect()
}
