//! What happened to a session, for the person: kept for `spa status`, said to a `knock` that waits, shown on the desktop.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};
use spa_proto::WallTime;

use crate::agent::start::say;
use crate::clock;
use crate::say::printable;

/// How many are kept, the oldest go first.
const KEPT: usize = 10;

/// The longest line, bytes; a gateway writes some of them.
const LONGEST: usize = 300;

/// The program that shows a line on the desktop.
const NOTIFIER: &str = "/usr/bin/notify-send";

/// The latest lines.
pub(super) struct News {
    gateway: String,
    lines: VecDeque<(WallTime, String)>,
}

impl News {
    pub(super) fn of(gateway: &str) -> Self {
        Self {
            gateway: gateway.to_owned(),
            lines: VecDeque::new(),
        }
    }

    /// Tells a line in every way there is.
    pub(super) fn tell(&mut self, text: &str) {
        let text = self.keep(text);
        say(&format!("news {text}"));
        notify(&self.gateway, &text);
    }

    /// Keeps a line, short and harmless, and gives it so.
    fn keep(&mut self, text: &str) -> String {
        let mut text = printable(text);
        let mut end = text.len().min(LONGEST);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back((clock::wall(), text.clone()));
        text
    }

    pub(super) fn json(&self) -> Value {
        let line = |(at, text): &(WallTime, String)| json!([at.as_millis(), text]);
        Value::Array(self.lines.iter().map(line).collect())
    }
}

/// Shows a line on the desktop, where there is one; whether anybody sees it is not known.
fn notify(gateway: &str, text: &str) {
    if std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_none() || !Path::new(NOTIFIER).is_file() {
        return;
    }
    let started = Command::new(NOTIFIER)
        .args(["--app-name=spa", "--", &format!("spa: {gateway}")])
        .arg(without_markup(text))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Ok(mut child) = started {
        thread::spawn(move || child.wait());
    }
}

/// Desktops read the text as markup.
fn without_markup(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_lines_are_kept_and_none_is_long_or_loud() {
        let mut news = News::of("gw");
        for n in 0..KEPT + 3 {
            news.keep(&format!("{n}\x1b[2J\n{}", "é".repeat(LONGEST)));
        }
        let lines = news.json();
        let lines = lines.as_array().expect("a list");
        assert_eq!(lines.len(), KEPT);
        let text = |line: &Value| line[1].as_str().unwrap_or_default().to_owned();
        assert!(text(&lines[0]).starts_with("3 [2J "), "{}", lines[0]);
        for line in lines.iter().map(text) {
            assert!(line.len() <= LONGEST && !line.chars().any(char::is_control));
        }
        assert_eq!(without_markup("<b>&"), "&lt;b&gt;&amp;");
    }
}
