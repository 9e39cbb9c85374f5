//! The status page as HTML.

use crate::sample;
use loaded_control::live::Live;
use loaded_control::{ConditionStatus, Effect, InstanceVerdict, Status, page};
use std::time::Instant;

fn render(status: &Status) -> String {
    page::render(status, &Live::default().frame(Instant::now(), status))
}

#[test]
fn everything_is_on_the_page_and_no_script() {
    let text = render(&sample::status());
    for shown in [
        "<!DOCTYPE html>",
        "<meta http-equiv=\"refresh\" content=\"5\">",
        "<span class=\"verdict good\">serving</span>",
        "<h2>web</h2>",
        "<td>198.51.100.11</td>",
        "connection refused",
        "draining, backup",
        "kernel path on: 66 % of all packets so far",
        "<meter min=\"0\" max=\"262144\" value=\"12000\">",
        "<td>worker[0]</td>",
        "12.34 s",
    ] {
        assert!(text.contains(shown), "no {shown} in {text}");
    }
    assert!(!text.contains("<script") && !text.contains("style=") && !text.contains("onclick"));
}

#[test]
fn the_verdict_comes_with_its_causes() {
    let mut status = sample::status();
    status.verdict = Some(InstanceVerdict::NotServing);
    status.conditions = vec![ConditionStatus {
        name: "rules_missing".to_owned(),
        effect: Effect::Stops,
        service: None,
        family: None,
        text: "packets do not reach the workers".to_owned(),
        mend: Some("loaded doctor".to_owned()),
    }];
    let text = render(&status);
    assert!(text.contains("<span class=\"verdict bad\">not serving</span>"), "{text}");
    assert!(text.contains("<li class=\"bad\">packets do not reach the workers: loaded doctor</li>"), "{text}");
}

/// Every opened element is closed in turn, whatever the names hold: nothing of them becomes markup.
#[test]
fn whatever_a_name_holds_is_text() {
    let evil = "</td><script>alert(1)</script>\"'&\u{202e}\u{1b}[2J";
    let mut status = sample::status();
    status.version = evil.to_owned();
    status.services[0].name = evil.to_owned();
    status.services[0].strategy = evil.to_owned();
    status.services[0].backends[0].cause = evil.to_owned();
    status.processes[1].name = evil.to_owned();
    status.processes[1].state = evil.to_owned();
    if let Some(path) = &mut status.kernel_path {
        path.off = Some(evil.to_owned());
    }
    let text = render(&status);
    assert!(!text.contains("<script") && !text.contains('\u{202e}') && !text.contains('\u{1b}'), "{text}");
    assert!(text.contains("&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;?"), "{text}");
    let mut open: Vec<&str> = Vec::new();
    for tag in text.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap();
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "{text}"),
            None => {
                let name = tag.split(' ').next().unwrap();
                if !matches!(name, "meta" | "link" | "!DOCTYPE") {
                    open.push(name);
                }
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
}
