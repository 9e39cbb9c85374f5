//! Packets that the kernel path has sent on and reports: they move the flow's state as if they had come this way.

use super::decider::Decider;
use super::flow_state::claim;
use super::keys::{Direction, flow_key};
use crate::time::Now;
use crate::wire::{Family, Kind, ParsedPacket, TcpSegment, is_mapped, protocol};
use loaded_fastpath::Report;

impl Decider {
    /// Takes note of a packet that has gone on already. If its flow is gone meanwhile, or its backend out, there is nothing to
    /// note: the next packet comes this way.
    pub fn hear(&mut self, report: &Report, now: Now) {
        let Some(packet) = self.reported(report) else { return };
        let direction = if report.reply { Direction::Reply } else { Direction::Request { vip: report.vip } };
        let Some(key) = flow_key(&packet, direction) else { return };
        let hashed = self.flows.prepare(&key);
        let is_it = |flow: &loaded_table::Flow| flow.vip == report.vip && flow.backend == report.backend;
        let found = self.flows.find(&hashed, &key, now.seconds, is_it);
        let Some((slot, flow)) = found.and_then(|slot| Some((slot, self.flows.get(slot)?))) else { return };
        if !self.backends.flags(flow.backend).keeps_flows() {
            return;
        }
        if report.reply {
            self.note_reply(&packet, (slot, flow), key.service_port, now);
        } else if let Some(number) = claim(flow.state, packet.kind)
            && report.heard != 0
            && u32::from(number) == report.heard & 0xffff
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
        let (client, service) = (report.client_port, report.service_port);
        let ports = if report.reply { (service, client) } else { (client, service) };
        let kind = match report.protocol {
            protocol::TCP => Kind::Tcp(TcpSegment::reported(ports, report.flags, (report.end, report.acknowledged))),
            protocol::UDP => Kind::Udp { ports },
            _ => return None,
        };
        let family = if is_mapped(&report.client) { Family::V4 } else { Family::V6 };
        Some(ParsedPacket { family, source, destination, protocol: report.protocol, transport: 0, kind })
    }
}
