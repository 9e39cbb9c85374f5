//! Single requests of a client. They run in the namespace of the calling thread, see `Lab::within`.

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// How long an answer may take.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// An address family and its addresses in the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn address(self, v4: &str, v6: &str, last: u16) -> IpAddr {
        match self {
            Self::V4 => format!("{v4}{last}"),
            Self::V6 => format!("{v6}{last}"),
        }
        .parse()
        .unwrap()
    }

    pub(crate) fn vip(self) -> IpAddr {
        self.client(100)
    }

    pub(crate) fn name_server(self) -> IpAddr {
        self.client(53)
    }

    /// Address n of the client's network; the client has 1 and 10 to 49.
    pub(crate) fn client(self, n: u16) -> IpAddr {
        self.address("192.0.2.", "2001:db8:1::", n)
    }

    /// The address of backend n, from 1.
    pub(crate) fn backend(self, n: u16) -> IpAddr {
        self.address("198.51.100.", "2001:db8:2::", 10 + n)
    }
}

/// Opens a connection from this address.
pub(crate) fn dial(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    dial_from(SocketAddr::new(from, 0), to)
}

/// Opens a connection from this address and port; port 0 leaves it to the kernel.
pub(crate) fn dial_from(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    dial_within(ANSWER_TIMEOUT, from, to)
}

/// With another limit to connect, and for each read and write after it.
pub(crate) fn dial_within(limit: Duration, from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = TimeVal::milliseconds(i64::try_from(limit.as_millis()).unwrap());
    // The time to send bounds connect(), too.
    setsockopt(&fd, sockopt::SendTimeout, &limit)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
    setsockopt(&fd, sockopt::ReuseAddr, &(from.port() != 0))?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(from))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(fd))
}

/// GET / on a connection of its own; returns the body, "NAME CLIENT" of the backend that answers.
pub(crate) fn get(from: IpAddr, to: IpAddr, port: u16) -> io::Result<String> {
    get_within(ANSWER_TIMEOUT, from, to, port)
}

/// The same with another limit.
pub(crate) fn get_within(limit: Duration, from: IpAddr, to: IpAddr, port: u16) -> io::Result<String> {
    let mut stream = dial_within(limit, SocketAddr::new(from, 0), SocketAddr::new(to, port))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.trim_end().to_owned()),
        _ => Err(io::Error::other(format!("not an answer: {answer:?}"))),
    }
}

/// Sends one datagram; returns the answer, "NAME CLIENT PAYLOAD".
pub(crate) fn ask(from: IpAddr, to: SocketAddr, text: &str) -> io::Result<String> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.send(text.as_bytes())?;
    let mut answer = vec![0; 65535];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// The backend's name in an answer, which must say that it sees this client.
#[track_caller]
pub(crate) fn backend_of(answer: &str, client: IpAddr) -> String {
    let mut words = answer.split_whitespace();
    let name = words.next().unwrap_or_default().to_owned();
    assert_eq!(words.next(), Some(client.to_string().as_str()), "{answer:?}: the backend sees another client");
    name
}
