//! A question to a worker: what would become of this packet, and why?

use crate::{BackendIndex, Outcome, ServiceIndex};
use bincode::{Decode, Encode};
use std::net::IpAddr;

/// The next packet of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Question {
    /// Its IP protocol number. ICMP of the addresses' family means an echo request.
    pub protocol: u8,
    /// The sender's address.
    pub client: IpAddr,
    /// The sender's port; the identifier of an echo request; 0 for protocols without ports.
    pub client_port: u16,
    /// The virtual IP it is sent to.
    pub vip: IpAddr,
    /// The port it is sent to; 0 for protocols without ports.
    pub vip_port: u16,
}

/// What would become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Explained {
    /// Which packet the answer assumes.
    pub assumed: Assumed,
    /// How it would end.
    pub outcome: Outcome,
    /// The service that takes it, or that of its flow.
    pub service: Option<ServiceIndex>,
    /// The living flow it belongs to.
    pub flow: Option<KnownFlow>,
    /// The backend it would go to.
    pub chosen: Option<Chosen>,
}

/// Which packet of the client is assumed to come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Assumed {
    /// Any packet: for this protocol they are all treated alike.
    Any,
    /// TCP without a flow, or with one that is half open or over: a SYN.
    Syn,
    /// TCP with an open flow: an ACK.
    Ack,
}

/// A flow as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct KnownFlow {
    /// The backend that has it.
    pub backend: BackendIndex,
    /// The number of its state in the flow table.
    pub state: u8,
    /// Seconds since its last packet.
    pub idle: u32,
}

/// The chosen backend and the reason for the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Chosen {
    /// Its number.
    pub backend: BackendIndex,
    /// What chose it.
    pub reason: ChoiceReason,
}

/// What sends a packet to its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ChoiceReason {
    /// Its flow is known.
    Flow,
    /// Its client has this backend by affinity.
    Client {
        /// Seconds since the client's last packet that was noted.
        idle: u32,
    },
    /// The strategy chooses it.
    Strategy {
        /// Number of backends that could be chosen.
        candidates: u16,
    },
    /// The strategy chooses it among those where it clashes with no other flow of its client.
    Clash {
        /// Where it would clash: the backend of its client, or the strategy's choice.
        instead_of: BackendIndex,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FromWorker, Link, ToWorker};

    const CLASH: ChoiceReason = ChoiceReason::Clash { instead_of: BackendIndex(u16::MAX) };

    #[test]
    fn a_question_and_its_answer_survive_the_trip() {
        let (supervisor, worker) = Link::<FromWorker, ToWorker>::pair().expect("pair");
        let [client, vip] = ["2001:db8::7", "2001:db8:1::1"].map(|address| address.parse().expect("address"));
        let question = Question { protocol: 132, client, client_port: u16::MAX, vip, vip_port: 443 };
        let message = ToWorker::Explain { id: u32::MAX, question };
        supervisor.send(&message).expect("send");
        assert_eq!(worker.receive().expect("receive"), message);
        for reason in [
            ChoiceReason::Flow,
            ChoiceReason::Client { idle: u32::MAX },
            ChoiceReason::Strategy { candidates: u16::MAX },
            CLASH,
        ] {
            let explained = Explained {
                assumed: Assumed::Ack,
                outcome: Outcome::DroppedUndecided,
                service: Some(ServiceIndex(u16::MAX)),
                flow: Some(KnownFlow { backend: BackendIndex(u16::MAX), state: u8::MAX, idle: u32::MAX }),
                chosen: Some(Chosen { backend: BackendIndex(0), reason }),
            };
            let message = FromWorker::Explained { id: 0, explained };
            worker.send(&message).expect("send");
            assert_eq!(supervisor.receive().expect("receive"), message);
        }
    }
}
