//! How the demo tells its story: one line for each step, with ✓ and its time, or ✗ with what was expected and what was seen.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Columns before the time.
const WIDTH: usize = 96;

/// The story so far.
#[derive(Debug)]
pub struct Story {
    begun: Instant,
    logs: PathBuf,
    colour: bool,
}

/// The story has ended before its end; what was wrong has been printed.
#[derive(Debug)]
pub struct Broken;

impl Story {
    /// Begins.
    pub fn begin(logs: &Path) -> Self {
        Self {
            begun: Instant::now(),
            logs: logs.to_path_buf(),
            colour: std::io::stdout().is_terminal(),
        }
    }

    /// One step: `expected` is what holds after it; the step gives a value and a few words on what was seen.
    ///
    /// # Errors
    /// When the step fails; everything there is to say has then been said.
    pub fn step<T>(
        &self,
        expected: &str,
        step: impl FnOnce() -> anyhow::Result<(T, String)>,
    ) -> Result<T, Broken> {
        // The step shows while it runs, where there is somebody to see it.
        if self.colour {
            print!("  {expected} …\r");
            let _nobody_may_be_reading = std::io::stdout().flush();
        }
        let begun = Instant::now();
        let outcome = step();
        let took = begun.elapsed().as_millis();
        match outcome {
            Ok((value, seen)) => {
                let line = match seen.as_str() {
                    "" => expected.to_owned(),
                    seen => format!("{expected}: {seen}"),
                };
                let clear = if self.colour { "\x1b[2K" } else { "" };
                println!("{clear}{} {line:<WIDTH$} {took:>6} ms", self.paint("✓", 32));
                Ok(value)
            }
            Err(error) => {
                println!(
                    "{} {expected}\n    expected: {expected}",
                    self.paint("✗", 31)
                );
                println!(
                    "    seen:     {}",
                    format!("{error:#}").replace('\n', "\n              ")
                );
                println!("    logs:     {}", self.logs.display());
                Err(Broken)
            }
        }
    }

    /// The last line.
    pub fn end(&self) {
        println!(
            "All of it held, {:.1} s. Logs: {}",
            self.begun.elapsed().as_secs_f64(),
            self.logs.display()
        );
    }

    fn paint(&self, mark: &str, colour: u8) -> String {
        if self.colour {
            format!("\x1b[{colour}m{mark}\x1b[0m")
        } else {
            mark.to_owned()
        }
    }
}

/// What a step says when it saw something else than it should have.
#[macro_export]
macro_rules! must {
    ($holds:expr, $($seen:tt)+) => {
        if !$holds {
            anyhow::bail!($($seen)+);
        }
    };
}
