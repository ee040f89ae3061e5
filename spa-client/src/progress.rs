//! What a person sees on stderr while something takes its time: a moving line on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// How often the line moves, and so how long a wait may last before it is drawn again.
pub const FRAME: Duration = Duration::from_millis(100);

const FRAMES: [char; 4] = ['|', '/', '-', '\\'];

/// Where we are.
pub struct Progress {
    surface: Surface,
    phase: Option<Phase>,
    frame: usize,
}

enum Surface {
    Terminal,
    Plain,
    Nowhere,
}

struct Phase {
    text: String,
    since: Instant,
}

impl Progress {
    /// Starts without a phase.
    #[must_use]
    pub fn new() -> Self {
        let surface = if stderr().is_terminal() {
            Surface::Terminal
        } else {
            Surface::Plain
        };
        Self {
            surface,
            phase: None,
            frame: 0,
        }
    }

    /// Shows nothing: for a process without a person.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            surface: Surface::Nowhere,
            phase: None,
            frame: 0,
        }
    }

    /// Enters a phase.
    pub fn phase(&mut self, text: impl Into<String>) {
        let phase = Phase {
            text: text.into(),
            since: Instant::now(),
        };
        match self.surface {
            Surface::Plain => eprintln!("{} …", phase.text),
            Surface::Terminal => draw(&phase, self.frame),
            Surface::Nowhere => {}
        }
        self.phase = Some(phase);
    }

    /// Draws the phase again, if the surface moves.
    pub fn tick(&mut self) {
        if let (Surface::Terminal, Some(phase)) = (&self.surface, &self.phase) {
            self.frame = (self.frame + 1) % FRAMES.len();
            draw(phase, self.frame);
        }
    }

    /// How long to wait at most before the next [`Self::tick`].
    #[must_use]
    pub fn patience(&self, wanted: Duration) -> Duration {
        match (&self.surface, &self.phase) {
            (Surface::Terminal, Some(_)) => wanted.min(FRAME),
            (Surface::Terminal | Surface::Plain | Surface::Nowhere, _) => wanted,
        }
    }

    /// Says something that stays.
    pub fn note(&mut self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    /// Leaves the phase; the terminal line is empty again.
    pub fn clear(&mut self) {
        if let (Surface::Terminal, Some(_)) = (&self.surface, self.phase.take()) {
            eprint!("\r\x1b[K");
            let _ = stderr().flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn draw(phase: &Phase, frame: usize) {
    let mark = FRAMES.get(frame).copied().unwrap_or(' ');
    let seconds = phase.since.elapsed().as_secs_f32();
    eprint!("\r\x1b[K{mark} {} ({seconds:.0} s)", phase.text);
    // A terminal that takes no more text is no reason to stop.
    let _ = stderr().flush();
}
