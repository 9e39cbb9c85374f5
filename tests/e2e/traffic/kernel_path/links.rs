//! Ways that packets come and go by the kernel path: to direct backends by their link address, and over a device without a link
//! header. VLAN and bond: `scripts/kernels`, for the kernel of the lab has neither.

use super::{REQUESTS, converse, missed};
use crate::rig::config::{Service, config};
use crate::rig::direct_return;
use crate::rig::lab::{Lab, eventually, install_script};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, ask, dial};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Open flows of mode "dsr" need no mark and no rule.
#[test]
fn packets_of_open_flows_go_to_direct_backends_by_the_kernel() {
    let Some(lab) = direct_return::up() else { return };
    let web = Service { keys: "mode = \"dsr\"", ..Service::default() };
    let udp = Service { name: "udp", protocol: "udp", ports: "7009", ..web.clone() };
    let text = format!("cores = \"0-1\"\nfast = \"auto\"\nunserved = \"drop\"\n{}", config("60s", &[web, udp]));
    let loaded = Loaded::toml(&lab, &text);
    for family in Family::BOTH {
        let before = loaded.packets(&["kernel_forwarded"]);
        let mut stream = lab.within("client", || dial(family.client(11), SocketAddr::new(family.vip(), 80)).unwrap());
        converse(&mut stream, REQUESTS);
        let passed = loaded.packets(&["kernel_forwarded"]) - before;
        assert!(passed >= REQUESTS as u64, "{family:?}: {passed}\n{}", loaded.ask(&["status"]).out);
        lab.within("client", || {
            for _ in 0..5 {
                ask(family.client(12), SocketAddr::new(family.vip(), 7009), "hello").unwrap();
            }
        });
        let explained = loaded.ask(&[
            "explain",
            "tcp",
            &stream.local_addr().unwrap().to_string(),
            &SocketAddr::new(family.vip(), 80).to_string(),
        ]);
        assert!(explained.out.contains("by the kernel path"), "{}", explained.out);
        // Without the rules by mark, only what is new would suffer.
        converse(&mut stream, 1);
    }
    assert_eq!(missed(&loaded, "way"), 0, "{}", loaded.ask(&["status"]).out);
    assert_eq!(loaded.packets(&["kernel_returned", "returned"]), 0);
    loaded.stop();
}

/// Copies packets between two tun devices, each in a network namespace of its own (Documentation/networking/tuntap.rst).
const TUNNEL: &str = r#"#!/usr/bin/python3
import ctypes, fcntl, os, select, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def device(namespace, name):
    # CLONE_NEWNET; TUNSETIFF with IFF_TUN and IFF_NO_PI
    assert libc.setns(os.open(namespace, os.O_RDONLY), 0x40000000) == 0, os.strerror(ctypes.get_errno())
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1001))
    return tun
one, other = [device(namespace, "tun0") for namespace in sys.argv[1:3]]
while True:
    for tun in select.select([one, other], [], [])[0]:
        try:
            os.write(other if tun == one else one, os.read(tun, 65536))
        except OSError:  # the other end is not up
            pass
"#;

/// Between balancer and client, 203.0.113.0/24 and 2001:db8:9::/64.
fn tunnel(lab: &Lab) -> Child {
    let script = lab.state().join("tunnel");
    install_script(TUNNEL, &script);
    let namespace = |who: &str| format!("/run/netns/{}", lab.namespace(who));
    let mut command = Command::new(&script);
    command.args([namespace("lb"), namespace("client")]).stdin(Stdio::null());
    let child = command.spawn().unwrap();
    for (who, last) in [("lb", 1), ("client", 2)] {
        let is_there = || lab.exec(who, &["ip", "link", "show", "tun0"]).code == Some(0);
        assert!(eventually(SOON, is_there), "{who} has no tun0");
        let address =
            format!("ip addr add 203.0.113.{last}/24 dev tun0; ip addr add 2001:db8:9::{last}/64 dev tun0 nodad");
        lab.sh(who, &format!("{address}; ip link set tun0 up"));
    }
    lab.sh(
        "client",
        "ip route add 192.0.2.100 via 203.0.113.1 dev tun0; ip -6 route add 2001:db8:1::100 via 2001:db8:9::1 dev tun0",
    );
    child
}

#[test]
fn a_tunnel_without_link_headers_is_as_good() {
    let Some(lab) = Lab::up() else { return };
    let mut tunnel = tunnel(&lab);
    let text = format!("cores = \"0-1\"\nfast = \"auto\"\n{}", config("60s", &[Service::default()]));
    let loaded = Loaded::toml(&lab, &text);
    assert_eq!(super::interfaces(&loaded), ["eth0", "eth1", "tun0"], "{}", loaded.log());
    for (client, family) in ["203.0.113.2", "2001:db8:9::2"].into_iter().zip(Family::BOTH) {
        let client: IpAddr = client.parse().unwrap();
        let mut stream = lab.within("client", || dial(client, SocketAddr::new(family.vip(), 80)).unwrap());
        let before = ["kernel_forwarded", "kernel_returned"].map(|label| loaded.packets(&[label]));
        converse(&mut stream, REQUESTS);
        let after = ["kernel_forwarded", "kernel_returned"].map(|label| loaded.packets(&[label]));
        let passed = [after[0] - before[0], after[1] - before[1]];
        assert!(passed.iter().all(|passed| *passed >= REQUESTS as u64), "{family:?}: {passed:?}\n{}", loaded.log());
    }
    loaded.stop();
    tunnel.kill().unwrap();
    tunnel.wait().unwrap();
}
