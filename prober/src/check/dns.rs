//! As much DNS as a check needs: a question; and of the answer, the header and the echoed question (RFC 1035 §4.1).

use loaded_ipc::Cause;

const HEADER: usize = 12;
/// Header, a name of 128 bytes plus two, type and class.
const MAX_QUERY: usize = HEADER + 130 + 4;
/// Recursion desired, nothing else.
const FLAGS: [u8; 2] = [0x01, 0x00];
/// Type A, class IN.
const A_IN: [u8; 4] = [0, 1, 0, 1];

/// A question for the addresses of a name, without its id.
#[derive(Debug)]
pub(crate) struct Query {
    message: Vec<u8>,
}

impl Query {
    /// The question, if the name is valid: labels of 1 to 63 bytes, with or without a trailing dot.
    pub(super) fn new(name: &str) -> Result<Self, &'static str> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !(1..=128).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err("a DNS name is empty, too long, or has a character that is not allowed");
        }
        let mut message = vec![0, 0, FLAGS[0], FLAGS[1], 0, 1, 0, 0, 0, 0, 0, 0];
        let labels = name.strip_suffix('.').unwrap_or(name);
        // "." alone is the root, which has no label.
        for label in labels.split('.').filter(|_| !labels.is_empty()) {
            match u8::try_from(label.len()) {
                Ok(length @ 1..=63) => message.push(length),
                _ => return Err("a DNS name has an empty label or one of more than 63 bytes"),
            }
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend_from_slice(&A_IN);
        Ok(Self { message })
    }

    /// Builds the whole message on the stack and passes it to `send`.
    pub(super) fn with_id<T>(&self, id: u16, send: impl FnOnce(&[u8]) -> T) -> T {
        let mut message = [0; MAX_QUERY];
        let length = self.message.len().min(MAX_QUERY);
        message[..length].copy_from_slice(&self.message[..length]);
        message[..2].copy_from_slice(&id.to_be_bytes());
        send(&message[..length])
    }

    /// What an answer says; `None` if it does not answer this question.
    pub(super) fn judge(&self, id: u16, answer: &[u8]) -> Option<Cause> {
        let [high, low, flags, codes, rest @ ..] = answer.first_chunk::<HEADER>()?;
        // QR set, and the opcode of a query.
        if u16::from_be_bytes([*high, *low]) != id || flags & 0xf8 != 0x80 {
            return None;
        }
        // A server that did not understand the question need not repeat it.
        if let code @ 1.. = codes & 0x0f {
            return Some(Cause::Rcode(code));
        }
        let question = self.message.get(HEADER..)?;
        let echo = answer.get(HEADER..self.message.len())?;
        // Letters may come back in another case (RFC 4343).
        (rest[..2] == [0, 1] && echo.eq_ignore_ascii_case(question)).then_some(Cause::Passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(query: &Query, id: u16) -> Vec<u8> {
        let mut answer = query.with_id(id, <[u8]>::to_vec);
        answer[2] = 0x81;
        answer[3] = 0x80;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        answer
    }

    #[test]
    fn the_question_is_as_the_rfc_has_it() {
        let query = Query::new("a.example").expect("good");
        let message = query.with_id(0x1234, <[u8]>::to_vec);
        assert_eq!(message, b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x01\x00\x01");
        assert_eq!(Query::new("a.example.").expect("good").message, query.message);
        assert_eq!(Query::new(".").expect("root").message[HEADER..], [0, 0, 1, 0, 1]);
        let longest = format!("{0}.{0}", "x".repeat(63));
        assert!(Query::new(&longest).expect("good").message.len() <= MAX_QUERY);
        for bad in ["", "..", "a..b", ".a", "a b", "ä", &"x".repeat(64), &"x.".repeat(65)] {
            assert!(Query::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_an_answer_to_the_question_counts() {
        let query = Query::new("a.example").expect("good");
        let good = answer(&query, 7);
        assert_eq!(query.judge(7, &good), Some(Cause::Passed));
        assert_eq!(query.judge(8, &good), None, "another id");
        assert_eq!(query.judge(7, &good[..HEADER + 4]), None, "cut");
        assert_eq!(query.judge(7, &query.with_id(7, <[u8]>::to_vec)), None, "an echo of the question");
        let mut other = good.clone();
        other[HEADER + 1] = b'b';
        assert_eq!(query.judge(7, &other), None, "another name");
        other[HEADER + 1] = b'A';
        assert_eq!(query.judge(7, &other), Some(Cause::Passed), "case does not matter");
        let mut none = good.clone();
        none[5] = 0;
        assert_eq!(query.judge(7, &none), None, "no question");
        none[3] = 0x83;
        assert_eq!(query.judge(7, &none[..HEADER]), Some(Cause::Rcode(3)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..200), id: u16) {
            let query = Query::new("www.example.com").expect("good");
            let _ = query.judge(id, &bytes);
        }
    }
}
