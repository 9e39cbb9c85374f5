//! The head of an answer.

use crate::request::Refusal;
use loaded_ipc::Document;
use std::io::Write;

/// Room for the longest head.
pub(crate) const MAX_HEAD: usize = 640;

/// The style sheet of the status page.
pub(crate) const STYLE: &[u8] = include_bytes!("style.css");

/// The page loads its style sheet from here, and nothing else from anywhere; no script runs, and nobody frames it.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Response {
    /// With a document. `serves`: what the health's status says.
    Found(Document, bool),
    /// With the style sheet.
    Style,
    /// With a refusal.
    Refused(Refusal),
    /// The supervisor has not answered in time.
    Unavailable,
}

impl Response {
    /// Status and reason (RFC 9110 §15, RFC 6585 §5).
    fn status(self) -> &'static str {
        match self {
            Self::Found(Document::Health, false) | Self::Unavailable => "503 Service Unavailable",
            Self::Found(..) | Self::Style => "200 OK",
            Self::Refused(Refusal::Malformed) => "400 Bad Request",
            Self::Refused(Refusal::NotFound) => "404 Not Found",
            Self::Refused(Refusal::Method) => "405 Method Not Allowed",
            Self::Refused(Refusal::TooLarge) => "431 Request Header Fields Too Large",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            // The exact text is the format's (OpenMetrics 1.0, "Overall Structure").
            Self::Found(Document::Metrics, _) => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Found(Document::Status, _) => "text/html; charset=utf-8",
            Self::Style => "text/css; charset=utf-8",
            Self::Found(Document::Health, _) | Self::Refused(_) | Self::Unavailable => "text/plain; charset=utf-8",
        }
    }

    /// What is said where the supervisor has made nothing.
    pub(crate) fn text(self) -> &'static [u8] {
        match self {
            Self::Found(..) => b"",
            Self::Style => STYLE,
            Self::Unavailable => b"the supervisor does not answer\n",
            Self::Refused(Refusal::Malformed) => b"this is no request of HTTP/1.1\n",
            Self::Refused(Refusal::NotFound) => b"there are /, /metrics and /health\n",
            Self::Refused(Refusal::Method) => b"GET and HEAD are understood\n",
            Self::Refused(Refusal::TooLarge) => b"the request is too large\n",
        }
    }

    /// Writes the head of an answer with so many bytes of content. Returns its length.
    pub(crate) fn head(self, content: usize, room: &mut [u8; MAX_HEAD]) -> usize {
        let mut rest = &mut room[..];
        let more = if self == Self::Refused(Refusal::Method) { "Allow: GET, HEAD\r\n" } else { "" };
        let written = write!(
            rest,
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {content}\r\n{more}Cache-Control: no-store\r\n\
             Content-Security-Policy: {POLICY}\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Connection: close\r\n\r\n",
            self.status(),
            self.content_type(),
        );
        let left = rest.len();
        // The longest head fits, as the test shows.
        if written.is_ok() { MAX_HEAD - left } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_head_fits_and_is_http() {
        let documents =
            Document::ALL.into_iter().flat_map(|document| [true, false].map(|ok| Response::Found(document, ok)));
        let refusals =
            [Refusal::Malformed, Refusal::NotFound, Refusal::Method, Refusal::TooLarge].map(Response::Refused);
        for response in documents.chain(refusals).chain([Response::Style, Response::Unavailable]) {
            let mut room = [0; MAX_HEAD];
            let length = response.head(usize::MAX, &mut room);
            let text = std::str::from_utf8(&room[..length]).expect("text");
            assert!(text.starts_with("HTTP/1.1 ") && text.ends_with("\r\n\r\n"), "{response:?}: {text}");
            assert!(text.contains("default-src 'none'") && text.contains("Connection: close"), "{text}");
        }
        let mut room = [0; MAX_HEAD];
        Response::Found(Document::Health, false).head(0, &mut room);
        assert!(room.starts_with(b"HTTP/1.1 503 "));
    }
}
