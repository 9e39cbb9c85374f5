//! Packets that the kernel path has sent on and reports: they move the flow's state as if they had come this way.

use super::decider::Decider;
use super::flow_state::claim;
use crate::time::Now;
use crate::wire::{Family, Kind, ParsedPacket, TcpSegment, is_mapped, protocol};
use loaded_fastpath::Report;
use loaded_table::{Flow, FlowKey, FlowState};

impl Decider {
    /// Takes note of a packet that has gone on already. If its flow is gone meanwhile, or its backend out, there is nothing to
    /// note: the next packet comes this way.
    pub fn hear(&mut self, report: &Report, now: Now) {
        let Some(packet) = self.reported(report) else { return };
        let Report { protocol, client, client_port, service_port, .. } = *report;
        let key = FlowKey { protocol, client, client_port, service_port };
        let hashed = self.flows.prepare(&key);
        let place = (report.vip, report.vip_port, report.backend);
        let is_it = |flow: &Flow| (flow.vip, flow.vip_port, flow.backend) == place;
        let Some((slot, flow)) = self.flows.find_flow(&hashed, &key, now.seconds, is_it) else { return };
        if !self.backends.flags(flow.backend).keeps_flows() {
            return;
        }
        if report.reply {
            self.note_reply(&packet, (slot, flow), now);
        } else if let Some(number) = claim(flow.state, packet.kind, true)
            && Some(number) == report.heard
            && goes_by_what_is_heard(flow.state)
        {
            // Replies that went on silently said up to where the backend has heard the client: that is as good a proof as the number
            // kept here, which is that of the last reply that came this way.
            self.flows.set_proof(slot, number);
        }
        self.advance(slot, flow, &packet, !report.reply, now);
    }

    /// The packet, as far as the state of its flow depends on it.
    fn reported(&self, report: &Report) -> Option<ParsedPacket> {
        let (vip, backend) = (self.setup.vip_address(report.vip)?, self.setup.backend_address(report.backend)?);
        let (source, destination) = if report.reply { (*backend, report.client) } else { (report.client, *vip) };
        let client = report.client_port;
        let ports = if report.reply {
            (self.setup.port_at(report.backend, report.vip_port), client)
        } else {
            (client, report.vip_port)
        };
        let kind = match report.protocol {
            protocol::TCP => Kind::Tcp(TcpSegment::reported(ports, report.flags, (report.end, report.acknowledged))),
            protocol::UDP => Kind::Udp { ports },
            _ => return None,
        };
        let family = if is_mapped(&report.client) { Family::V4 } else { Family::V6 };
        Some(ParsedPacket { family, source, destination, protocol: report.protocol, transport: 0, kind })
    }
}

/// Whether the number that proves a client's packet in this state is what the backend has acknowledged last.
fn goes_by_what_is_heard(state: FlowState) -> bool {
    use FlowState as S;
    matches!(state, S::Established | S::ClientDone | S::BackendDone | S::Reset)
}
