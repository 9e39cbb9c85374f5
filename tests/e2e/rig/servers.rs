//! Servers of the tests that answer checks well or badly as told, while nginx serves on.

use super::lab::{Lab, eventually};
use super::loaded::Loaded;
use super::net::Family;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// The port of [`Web`]s that tell of a backend's state.
pub(crate) const PORT: u16 = 8090;
/// An idle worker reads its link every 50 ms, so it may learn a little later what the supervisor knows.
pub(crate) const HEARD: Duration = Duration::from_millis(200);

/// A `[[service]]` over both families without its backends; `keys` are more lines of it.
pub(crate) fn service(name: &str, protocol: &str, port: u16, keys: &str) -> String {
    let (v4, v6) = (Family::V4.vip(), Family::V6.vip());
    format!(
        "[[service]]\nname = \"{name}\"\nvip = [\"{v4}\", \"{v6}\"]\nprotocol = \"{protocol}\"\nports = [{port}]\n\
         {keys}\n"
    )
}

/// These backends of both families; `keys` are more lines of each.
pub(crate) fn backends(numbers: &[u16], keys: &str) -> String {
    let one = |n: u16| Family::BOTH.map(|f| format!("[[service.backend]]\naddress = \"{}\"\n{keys}\n", f.backend(n)));
    numbers.iter().flat_map(|n| one(*n)).collect()
}

/// What a server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mood {
    /// Answers with this status.
    Says(u16),
    /// Answers with that status, too late.
    Late(Duration),
    /// Accepts the connection and never answers.
    Silent,
    /// Closes it without an answer.
    Closes,
    /// Answers in another protocol.
    Strange,
}

/// A server in a backend's namespace, over both families. It ends when dropped.
pub(crate) struct Server {
    mood: Arc<Mutex<Mood>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A web server on this port.
    pub(crate) fn web(lab: &Lab, who: &str, port: u16) -> Self {
        // The socket stays in the namespace in which it was made; [::] takes both families.
        let listener = lab.within(who, || TcpListener::bind(("::", port))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mood = Arc::new(Mutex::new(Mood::Says(200)));
        let shown = Arc::clone(&mood);
        let mut held = Vec::new();
        Self::run(mood, move || match listener.accept() {
            Ok((stream, _)) => {
                let mood = *shown.lock().unwrap();
                held.extend(serve(stream, mood));
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                std::thread::sleep(Duration::from_millis(2));
            }
        })
    }

    /// A UDP server on this port. `answer` makes an answer, or none, of each datagram.
    pub(crate) fn datagrams(
        lab: &Lab,
        who: &str,
        port: u16,
        answer: impl Fn(&[u8], Mood) -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        let socket = lab.within(who, || UdpSocket::bind(("::", port))).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mood = Arc::new(Mutex::new(Mood::Says(200)));
        let shown = Arc::clone(&mood);
        Self::run(mood, move || {
            let mut bytes = [0; 512];
            if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                let mood = *shown.lock().unwrap();
                if let Some(answer) = answer(&bytes[..length], mood) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        })
    }

    fn run(mood: Arc<Mutex<Mood>>, mut step: impl FnMut() + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                step();
            }
        });
        Self { mood, over, thread: Some(thread) }
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()), "a server of the test failed");
    }
}

/// Answers, or gives the stream back to be held.
fn serve(mut stream: TcpStream, mood: Mood) -> Option<TcpStream> {
    let answer = |mut stream: TcpStream, text: &str| {
        // Who asks may be gone.
        let _ = stream.write_all(text.as_bytes());
    };
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut request = [0; 1024];
    // Without the request read, closing would be a reset.
    let _ = stream.read(&mut request);
    match mood {
        Mood::Silent => return Some(stream),
        Mood::Closes => {}
        Mood::Strange => answer(stream, "SSH-2.0-nothing\r\n"),
        Mood::Says(status) => answer(stream, &format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n")),
        Mood::Late(time) => drop(std::thread::spawn(move || {
            std::thread::sleep(time);
            answer(stream, "HTTP/1.1 200 x\r\n\r\n");
        })),
    }
    None
}

/// Servers on [`PORT`] of b1, b2 and b3.
pub(crate) fn webs(lab: &Lab) -> [Server; 3] {
    ["b1", "b2", "b3"].map(|who| Server::web(lab, who, PORT))
}

/// Waits until the status shows this state for a backend in both families, and the workers know.
#[track_caller]
pub(crate) fn becomes(loaded: &Loaded, service: &str, n: u16, state: &str) {
    let is = || Family::BOTH.iter().all(|family| loaded.backend(service, family.backend(n))["state"] == state);
    assert!(eventually(Duration::from_secs(8), is), "{service}: backend {n} is not {state}: {}", loaded.status());
    std::thread::sleep(HEARD);
}

/// Events of a service's backends since `since`, as "ADDRESS WHAT", each with the time passed since then.
pub(crate) fn events(loaded: &Loaded, service: &str, since: SystemTime) -> Vec<(Duration, String)> {
    let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let history = loaded.json(&["history", "-n", "1000"]);
    let list: &Vec<Value> = history.as_array().unwrap();
    let one = |event: &Value| {
        let at = Duration::from_millis(event["at"].as_u64().unwrap());
        let text = format!("{} {}", event["address"].as_str()?, event["what"].as_str()?);
        (event["service"] == service && at >= since).then(|| (at.saturating_sub(since), text))
    };
    list.iter().filter_map(one).collect()
}

/// The name in an answer of the lab's UDP echo on a socket of the client, if one comes in time.
pub(crate) fn echo(socket: &UdpSocket, patience: Duration) -> std::io::Result<String> {
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"hello")?;
    let mut bytes = [0; 200];
    let length = socket.recv(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).split(' ').next().unwrap_or_default().to_owned())
}

/// A client's socket, connected to the VIP.
pub(crate) fn datagrams(lab: &Lab, family: Family, client: u16, port: u16) -> UdpSocket {
    lab.within("client", || {
        let socket = UdpSocket::bind((family.client(client), 0)).unwrap();
        socket.connect(SocketAddr::new(family.vip(), port)).unwrap();
        socket
    })
}

/// Runs `act`; returns its result and how long it took.
pub(crate) fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let done = act();
    (done, begin.elapsed())
}
