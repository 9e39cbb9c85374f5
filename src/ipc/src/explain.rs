//! What would become of a packet, and why: asked of the worker that would get it.

use crate::{BackendIndex, Outcome, ServiceIndex};
use bincode::{Decode, Encode};
use std::net::IpAddr;

/// The next packet of a client, as far as it must be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Question {
    /// Its upper layer. ICMP of the addresses' family is an echo request.
    pub protocol: u8,
    /// Who sends it.
    pub client: IpAddr,
    /// From which port; the identifier of an echo request; 0 where there are no ports.
    pub client_port: u16,
    /// To which virtual IP.
    pub vip: IpAddr,
    /// To which port; 0 where there are none.
    pub vip_port: u16,
}

/// What would become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Explained {
    /// The packet that the answer is about.
    pub assumed: Assumed,
    /// Its end.
    pub outcome: Outcome,
    /// The service it is for, or that of its flow.
    pub service: Option<ServiceIndex>,
    /// The living flow it belongs to.
    pub flow: Option<KnownFlow>,
    /// Where it goes.
    pub chosen: Option<Chosen>,
}

/// Which packet is the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Assumed {
    /// Of a protocol whose packets need not be told apart.
    Any,
    /// TCP without a flow, or with one that is half open or over: a SYN.
    Syn,
    /// TCP with an open flow: an ACK.
    Ack,
}

/// A flow as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct KnownFlow {
    /// Who has it.
    pub backend: BackendIndex,
    /// The number of its state in the flow table.
    pub state: u8,
    /// Seconds since its last packet.
    pub idle: u32,
}

/// A backend, and why it is this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Chosen {
    /// Which.
    pub backend: BackendIndex,
    /// Why.
    pub why: Why,
}

/// Why a packet goes to its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Why {
    /// Its flow is there.
    Flow,
    /// Its client has this backend.
    Client {
        /// Seconds since the client was last taken note of.
        idle: u32,
    },
    /// The strategy chooses it.
    Strategy {
        /// Among so many that may be chosen.
        candidates: u16,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FromWorker, Link, ToWorker};

    #[test]
    fn a_question_and_its_answer_survive_the_trip() {
        let (supervisor, worker) = Link::<FromWorker, ToWorker>::pair().expect("pair");
        let [client, vip] = ["2001:db8::7", "2001:db8:1::1"].map(|address| address.parse().expect("address"));
        let question = Question { protocol: 132, client, client_port: u16::MAX, vip, vip_port: 443 };
        let message = ToWorker::Explain { id: u32::MAX, question };
        supervisor.send(&message).expect("send");
        assert_eq!(worker.receive().expect("receive"), message);
        for why in [Why::Flow, Why::Client { idle: u32::MAX }, Why::Strategy { candidates: u16::MAX }] {
            let explained = Explained {
                assumed: Assumed::Ack,
                outcome: Outcome::DroppedUndecided,
                service: Some(ServiceIndex(u16::MAX)),
                flow: Some(KnownFlow { backend: BackendIndex(u16::MAX), state: u8::MAX, idle: u32::MAX }),
                chosen: Some(Chosen { backend: BackendIndex(0), why }),
            };
            let message = FromWorker::Explained { id: 0, explained };
            worker.send(&message).expect("send");
            assert_eq!(supervisor.receive().expect("receive"), message);
        }
    }
}
