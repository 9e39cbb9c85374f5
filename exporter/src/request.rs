//! What a request asks for, or why it is refused (RFC 9110, RFC 9112). The parser is httparse.

use loaded_ipc::Document;

/// Longest head of a request, bytes.
pub(crate) const MAX_REQUEST: usize = 4096;
/// Most header fields of a request. Prometheus sends six, a browser some fifteen.
const MAX_FIELDS: usize = 48;

/// What a request leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub wanted: Wanted,
    /// Whether the answer goes without its body (HEAD).
    pub head_only: bool,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// What the supervisor makes.
    Document(Document),
    /// The style sheet of the status page.
    Style,
    /// Nothing that there is, or not in a way that is understood.
    Refused(Refusal),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is not HTTP/1, or contradicts itself.
    Malformed,
    /// There is nothing by that name.
    NotFound,
    /// Nothing can be changed here.
    Method,
    /// Its head is longer than [`MAX_REQUEST`] or has too many fields.
    TooLarge,
}

/// Judges the bytes that have come so far. `None`: there is more to come.
#[must_use]
pub fn judge(bytes: &[u8]) -> Option<Request> {
    let refused = |refusal| Some(Request { wanted: Wanted::Refused(refusal), head_only: false });
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < MAX_REQUEST => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return refused(Refusal::TooLarge),
        Err(_) => return refused(Refusal::Malformed),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return refused(Refusal::Malformed);
    };
    // RFC 9112 §3.2: HTTP/1.1 has exactly one Host.
    let hosts = parsed.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host")).count();
    if hosts > 1 || (hosts == 0 && version == 1) {
        return refused(Refusal::Malformed);
    }
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return refused(Refusal::Method),
    };
    Some(Request { wanted: named(path(target)), head_only })
}

/// The path of a target, without a query; of an absolute one too, which a server must accept (RFC 9112 §3.2.2).
fn path(target: &str) -> &str {
    let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"));
    let target = match scheme.and_then(|_| target.get(7..)) {
        Some(rest) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        None => target,
    };
    match target.split_once('?') {
        Some(("", _)) => "/",
        Some((path, _)) => path,
        None => target,
    }
}

fn named(path: &str) -> Wanted {
    match path {
        "/" => Wanted::Document(Document::Status),
        "/metrics" => Wanted::Document(Document::Metrics),
        "/health" => Wanted::Document(Document::Health),
        "/style.css" => Wanted::Style,
        _ => Wanted::Refused(Refusal::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wanted(text: &str) -> Option<Wanted> {
        judge(text.as_bytes()).map(|request| request.wanted)
    }

    #[test]
    fn what_there_is_is_found_by_every_form_of_its_name() {
        for (target, document) in [
            ("/", Document::Status),
            ("/?refresh=1", Document::Status),
            ("/metrics", Document::Metrics),
            ("/metrics?name[]=x", Document::Metrics),
            ("http://example.com/metrics", Document::Metrics),
            ("HTTP://[::1]:9273", Document::Status),
            ("http://example.com?x", Document::Status),
            ("/health", Document::Health),
        ] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(wanted(&request), Some(Wanted::Document(document)), "{target}");
        }
        assert_eq!(wanted("GET /style.css HTTP/1.0\r\n\r\n"), Some(Wanted::Style));
        let head = judge(b"HEAD / HTTP/1.0\n\n").expect("whole");
        assert!(head.head_only && head.wanted == Wanted::Document(Document::Status));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        use Refusal::{Malformed, Method, NotFound, TooLarge};
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS));
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(MAX_REQUEST));
        for (request, refusal) in [
            ("GET / HTTP/1.1\r\n\r\n", Malformed),
            ("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", Malformed),
            ("GET / HTTP/2.0\r\n\r\n", Malformed),
            ("\u{16}\u{3}\u{1}", Malformed),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Malformed),
            ("POST / HTTP/1.0\r\n\r\n", Method),
            ("get / HTTP/1.0\r\n\r\n", Method),
            ("OPTIONS * HTTP/1.0\r\n\r\n", Method),
            ("GET /../etc/passwd HTTP/1.0\r\n\r\n", NotFound),
            ("GET /metrics/ HTTP/1.0\r\n\r\n", NotFound),
            (many.as_str(), TooLarge),
            (&long[..MAX_REQUEST], TooLarge),
        ] {
            assert_eq!(wanted(request), Some(Wanted::Refused(refusal)), "{request:?}");
        }
        for part in ["", "G", "GET / HTTP/1.1\r\nHost: x\r\n", &long[..MAX_REQUEST - 1]] {
            assert_eq!(wanted(part), None, "{part:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..MAX_REQUEST + 1)) {
            let judged = judge(&bytes);
            prop_assert!(judged.is_some() || bytes.len() < MAX_REQUEST);
        }
    }
}
