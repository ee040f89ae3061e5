//! What many measurements of one thing come to: median, 99th percentile, extremes.

use std::time::Duration;

/// Measurements of one thing, sorted.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<f64>);

impl Figures {
    /// Sorts them.
    pub fn new(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    /// The same from lengths of time, in milliseconds.
    pub fn of_times(all: impl IntoIterator<Item = Duration>) -> Self {
        Self::new(all.into_iter().map(ms).collect())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that `share` of them (0 to 1) do not exceed; 0 when there is none.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a count of measurements, far below 2^52"
    )]
    pub fn at(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        let index = rank.saturating_sub(1).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or_default()
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// The 99th percentile.
    pub fn p99(&self) -> f64 {
        self.at(0.99)
    }

    /// The greatest.
    pub fn greatest(&self) -> f64 {
        self.at(1.0)
    }

    /// How they spread, in words.
    pub fn spread(&self) -> String {
        format!(
            "{} to {}, n {}",
            short(self.at(0.0)),
            short(self.greatest()),
            self.count()
        )
    }
}

/// A length of time in milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Three digits that matter, no more.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measurements_and_not_in_between() {
        let figures = Figures::new((1..=200).rev().map(f64::from).collect());
        assert_eq!(short(figures.median()), "100");
        assert_eq!(short(figures.p99()), "198");
        assert_eq!(short(figures.greatest()), "200");
        assert_eq!(short(Figures::default().median()), "0");
    }
}
