//! Which verdict goes with each outcome. The outcomes themselves: [`loaded_ipc::Outcome`]; counted in `crate::forward`.

use loaded_ipc::Outcome;
use loaded_queue::Verdict;

/// What the kernel is told to do with a packet of this outcome. Decisions name only outcomes, so that a packet's verdict and
/// its counter cannot disagree.
#[must_use]
pub fn verdict(outcome: Outcome) -> Verdict {
    use Outcome as O;
    match outcome {
        O::Forwarded
        | O::ForwardedNew
        | O::AnsweredReset
        | O::AnsweredUnreachable
        | O::AnsweredBackend
        | O::RefusedReset
        | O::RefusedUnreachable
        | O::RefusedClash
        | O::ErrorForwarded => Verdict::Rewrite,
        // Through the rules again, where its new source, the VIP, keeps it out of connection tracking.
        O::Returned | O::ErrorReturned | O::ErrorRelayed | O::RepeatedFragment => Verdict::Repeat,
        O::PassedForeign | O::PassedOwn | O::PassedUnserved | O::PassedNeighbour | O::PassedMalformed => {
            Verdict::Accept
        }
        O::DroppedMalformed
        | O::DroppedFragment
        | O::DroppedUnserved
        | O::DroppedStrayError
        | O::DroppedBackendOut
        | O::DroppedNoBackend
        | O::DroppedTableFull
        | O::DroppedClash
        | O::DroppedCut
        | O::DroppedOrphan
        | O::DroppedUndecided => Verdict::Drop,
    }
}
