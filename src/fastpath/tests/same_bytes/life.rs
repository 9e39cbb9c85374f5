//! A worker's life: flows of every kind and age begin, and packets of them come.

use crate::generated::{Known, PROTOCOLS, Random, make};
use crate::judge::{Seen, judge};
use crate::packets::{self, ACK, FIN, tcp};
use crate::world::{self, DIRECT_VIPS, VIPS, World, at, now};
use loaded_fastpath::Keep;

pub(crate) struct Life {
    pub(crate) world: World,
    pub(crate) seen: Seen,
    flows: Vec<Known>,
    kept: [bool; 6],
}

impl Life {
    /// With at most so many flows.
    pub(crate) fn begin(mut world: World, flows: usize, random: &mut Random) -> Self {
        let flows = (0..flows).filter_map(|_| begin(&mut world, random)).collect();
        Self { world, seen: Seen::default(), flows, kept: [true; 6] }
    }

    /// The next packet, and now and then a new flow, or another word of what the worker keeps.
    pub(crate) fn step(&mut self, random: &mut Random, context: &str) {
        if random.one_in(20)
            && let Some(new) = begin(&mut self.world, random)
        {
            let old = random.below(self.flows.len());
            self.flows[old] = new;
        }
        if random.one_in(200) {
            let backend = random.below(6);
            let keep = *random.pick(&[Keep::No, Keep::Yes, Keep::Yes, Keep::Yes, Keep::Heard]);
            self.kept[backend] = keep != Keep::No;
            world::keep(&self.world.keeping, backend, keep);
        }
        let flow = random.pick(&self.flows).clone();
        let made = make(random, &flow);
        let context = format!("{context}: {flow:?} kept {:?} {made:02x?}", self.kept);
        judge(&mut self.world, &made, self.kept, &mut self.seen, &context);
    }
}

/// Begins a flow of any kind and age, if there is room.
fn begin(world: &mut World, random: &mut Random) -> Option<Known> {
    let side = random.below(2);
    let vip = *random.pick(&[VIPS[side], VIPS[side + 2], DIRECT_VIPS[side]]);
    let vip = (vip, 400 + random.below(50) as u16);
    let host = random.below(200);
    let client = if side == 0 { format!("10.50.1.{}", host + 1) } else { format!("2001:db8:50:{host:x}::1") };
    let client = (client, 1024 + random.below(60_000) as u16);
    let protocol = *random.pick(&PROTOCOLS);
    let mut then = now();
    // Some are stale, and none is expired.
    then.seconds -= if random.one_in(3) { random.below(100) as u32 } else { 0 };
    let end = (client.0.as_str(), client.1);
    let backend = match (protocol, random.below(6)) {
        (packets::TCP, 0) => world.begin(end, vip, then)?,
        (packets::TCP, more) => {
            let backend = world.open(end, vip, then)?;
            if more == 1 {
                world.decide(&tcp(end, vip, FIN | ACK), then);
            }
            if more == 2 && !DIRECT_VIPS.contains(&vip.0) {
                world.decide(&tcp(at(&backend, vip.1), end, FIN | ACK), then);
            }
            backend
        }
        (_, more) => world.talk(end, vip, 1 + more as u32, then)?,
    };
    Some(Known { protocol, client, vip, backend })
}
