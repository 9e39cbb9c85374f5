//! The statements of a rule of nftables.

mod field;

use crate::matches::Match;
use crate::rule::Ruling;
use field::Field;
use serde_json::Value;
use std::collections::BTreeMap;

/// The elements of a table's sets and maps, by name.
pub(super) type Sets = BTreeMap<String, Vec<Value>>;

/// What a part of a rule asks for, and what it does.
type Branch = (Vec<Match>, Ruling);

/// What a rule does: one part for each verdict that it may come to.
pub(super) fn expressions(statements: &[Value], sets: &Sets) -> Vec<Branch> {
    let (mut matches, mut parts) = (Vec::new(), Vec::new());
    for statement in statements {
        let Some((kind, value)) = statement.as_object().and_then(|object| object.iter().next()) else {
            matches.push(Match::Unread);
            continue;
        };
        match kind.as_str() {
            "match" => matches.push(compared(value, sets).unwrap_or(Match::Unread)),
            "vmap" => {
                let branches = branches(value, sets).unwrap_or_else(|| vec![(Match::Unread, Ruling::Hands)]);
                for (asked, ruling) in branches {
                    parts.push((matches.iter().cloned().chain([asked]).collect(), ruling));
                }
            }
            "xt" => xt(value, &mut matches, &mut parts),
            "limit" | "quota" | "ct count" | "meter" => matches.push(Match::Part),
            // With statements of its own it asks how often something was seen.
            "set" if value.get("stmt").is_some() => matches.push(Match::Part),
            "set" | "map" | "counter" | "log" | "mangle" | "notrack" | "flow" | "dup" | "secmark" | "last"
            | "comment" | "ct helper" | "ct timeout" | "ct expectation" | "masquerade" | "snat" | "dnat"
            | "redirect" | "continue" | "optstrip" | "reset" => {}
            _ => parts.push((matches.clone(), ruling(kind, value))),
        }
    }
    if parts.is_empty() {
        parts.push((matches, Ruling::Nothing));
    }
    parts
}

/// What `queue` does: with the flag `bypass` the kernel accepts what nobody reads.
fn queues(value: &Value) -> Ruling {
    let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
    let span = match value.get("num") {
        None => Some((0, 0)),
        Some(num) => match num.get("range").and_then(Value::as_array).map(Vec::as_slice) {
            Some([first, last]) => number(first).zip(number(last)),
            _ => number(num).map(|one| (one, one)),
        },
    };
    let bypasses = value.get("flags").is_some_and(|flags| flags.to_string().contains("bypass"));
    span.filter(|_| !bypasses).map_or(Ruling::Hands, |(first, last)| Ruling::Queues(first, last))
}

/// What a verdict does; what is not known may do anything.
fn ruling(kind: &str, value: &Value) -> Ruling {
    let target = || value.get("target").and_then(Value::as_str).map(str::to_owned);
    match (kind, target()) {
        ("accept", _) => Ruling::Accept,
        ("drop" | "reject", _) => Ruling::Drop,
        ("continue", _) => Ruling::Nothing,
        ("queue", _) => queues(value),
        ("return", _) => Ruling::Return,
        ("jump", Some(chain)) => Ruling::Jump(chain),
        ("goto", Some(chain)) => Ruling::Goto(chain),
        _ => Ruling::Hands,
    }
}

/// A match or target of iptables in a table that iptables-save does not show: nft tells no more than its name.
fn xt(value: &Value, matches: &mut Vec<Match>, parts: &mut Vec<Branch>) {
    let of = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    match (of("type"), of("name")) {
        ("match", "comment") => {}
        ("target", "REJECT") => parts.push((matches.clone(), Ruling::Drop)),
        ("target", "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "CT" | "CHECKSUM") => {}
        ("target", _) => parts.push((matches.clone(), Ruling::Hands)),
        _ => matches.push(Match::Unread),
    }
}

/// `{"op": "==", "left": …, "right": …}`; `None`: not understood.
fn compared(value: &Value, sets: &Sets) -> Option<Match> {
    let op = value.get("op")?.as_str()?;
    let fields = fields(value.get("left")?)?;
    let right = value.get("right")?;
    let elements = elements(right, sets)?;
    match fields.as_slice() {
        [field] => field.compared(op, right, elements),
        _ => {
            let any = Match::Any(elements.iter().map(|element| concatenated(&fields, element)).collect());
            match op {
                "==" | "in" => Some(any),
                "!=" => Some(any.not()),
                _ => None,
            }
        }
    }
}

fn branches(value: &Value, sets: &Sets) -> Option<Vec<(Match, Ruling)>> {
    let fields = fields(value.get("key")?)?;
    let branch = |pair: &Value| {
        let [key, verdict] = pair.as_array()?.as_slice() else { return None };
        let (kind, value) = verdict.as_object()?.iter().next()?;
        Some((concatenated(&fields, key), ruling(kind, value)))
    };
    elements(value.get("data")?, sets)?.iter().map(|pair| branch(pair)).collect()
}

/// One field, or several that are asked for together: `ip daddr . tcp dport`.
fn fields(left: &Value) -> Option<Vec<Field>> {
    match left.get("concat").and_then(Value::as_array) {
        Some(all) => all.iter().map(Field::of).collect(),
        None => Some(vec![Field::of(left)?]),
    }
}

/// What these fields have to be to be this element.
fn concatenated(fields: &[Field], element: &Value) -> Match {
    let element = bare(element);
    let values = element.get("concat").and_then(Value::as_array);
    match (fields, values) {
        ([field], None) => field.is(element).unwrap_or(Match::Unread),
        (fields, Some(values)) if fields.len() == values.len() => {
            let pairs = fields.iter().zip(values);
            Match::All(pairs.map(|(field, value)| field.is(value).unwrap_or(Match::Unread)).collect())
        }
        _ => Match::Unread,
    }
}

/// What is on the right side: the elements of a set, by its name or written out, or one value.
fn elements<'v>(right: &'v Value, sets: &'v Sets) -> Option<Vec<&'v Value>> {
    if let Some(name) = right.as_str().and_then(|text| text.strip_prefix('@')) {
        return Some(sets.get(name)?.iter().map(bare).collect());
    }
    match right.get("set") {
        Some(Value::Array(all)) => Some(all.iter().map(bare).collect()),
        Some(one) => Some(vec![bare(one)]),
        None => Some(vec![right]),
    }
}

/// An element without its time and counters.
fn bare(element: &Value) -> &Value {
    element.get("elem").and_then(|element| element.get("val")).unwrap_or(element)
}
