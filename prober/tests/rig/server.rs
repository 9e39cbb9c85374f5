//! Backends of every kind: good, dead, slow and strange.

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Serves each connection with `serve`, in a thread that ends with the process.
pub(crate) fn tcp(address: IpAddr, serve: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind(SocketAddr::new(address, 0)).expect("bind");
    let port = listener.local_addr().expect("address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream);
        }
    });
    port
}

/// Answers each connection, once the request has arrived, with these pieces, each after a pause.
pub(crate) fn answering(address: IpAddr, pieces: &'static [&'static str], pause: Duration) -> u16 {
    tcp(address, move |mut stream| {
        thread::spawn(move || {
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap_or(0);
            if length > 0 {
                assert!(request[..length].starts_with(b"GET / HTTP/1.1\r\nHost: a.example\r\n"));
                assert!(request[..length].ends_with(b"\r\n\r\n"));
            }
            for piece in pieces {
                thread::sleep(pause);
                if stream.write_all(piece.as_bytes()).is_err() {
                    return;
                }
            }
        });
    })
}

/// Accepts and stays silent.
pub(crate) fn silent(address: IpAddr) -> u16 {
    tcp(address, std::mem::forget)
}

/// Accepts, reads the request, and resets.
pub(crate) fn resetting(address: IpAddr) -> u16 {
    tcp(address, |mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&stream, sockopt::Linger, &linger).expect("linger");
    })
}

/// Takes no connection: its accept queue is full.
pub(crate) fn full(address: IpAddr) -> u16 {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::empty(), None).expect("socket");
    let any = SockaddrStorage::from(SocketAddr::new(address, 0));
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &any).expect("bind");
    listen(&socket, Backlog::new(0).expect("backlog")).expect("listen");
    let listener = TcpListener::from(socket);
    let to = listener.local_addr().expect("address");
    for _ in 0..3 {
        if let Ok(stream) = TcpStream::connect_timeout(&to, Duration::from_millis(50)) {
            std::mem::forget(stream);
        }
    }
    std::mem::forget(listener);
    to.port()
}

/// A port where nobody listens.
pub(crate) fn closed(address: IpAddr) -> u16 {
    TcpListener::bind(SocketAddr::new(address, 0)).expect("bind").local_addr().expect("address").port()
}

/// Answers each datagram with what `answer` makes of it.
pub(crate) fn udp(address: IpAddr, answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> u16 {
    let socket = UdpSocket::bind(SocketAddr::new(address, 0)).expect("bind");
    let port = socket.local_addr().expect("address").port();
    thread::spawn(move || {
        let mut bytes = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            for answer in answer(&bytes[..length]) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    port
}

/// Answers HTTP 200 after `pause` to as many clients as come, from one thread.
pub(crate) fn crowd(address: IpAddr, pause: Duration) -> u16 {
    let (sender, receiver) = std::sync::mpsc::channel::<(Instant, TcpStream)>();
    thread::spawn(move || {
        for (came, mut stream) in receiver {
            thread::sleep((came + pause).saturating_duration_since(Instant::now()));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        }
    });
    let listener = TcpListener::bind(SocketAddr::new(address, 0)).expect("bind");
    listen(&listener, Backlog::MAXCONN).expect("a longer queue");
    let port = listener.local_addr().expect("address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = sender.send((Instant::now(), stream));
        }
    });
    port
}
