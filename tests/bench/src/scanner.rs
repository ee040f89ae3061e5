//! What a scanner can time. No closed port answers, so none has a time of its own; what is left is how soon a port that is kept open
//! answers right after packets of a knock's length to the knock port, or to its neighbour. In random order, with a t-test after dudect.

use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use spa_tests::gateway::Gateway;
use spa_tests::topology::{GATEWAY, PORT, Town, endpoint};
use toml_edit::value;

use crate::Pass;
use crate::fleet::{hush, random};
use crate::table::{Budget, Row, Table};

/// How many packets precede each question.
const BURST: usize = 16;
/// From here on two means differ for sure (dudect's own limit).
const CERTAIN: f64 = 10.0;
/// An answer that takes longer was lost.
const LOST: Duration = Duration::from_millis(500);

/// Measures it.
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    let samples = pass.of(2_000, 20_000);
    let town = Town::build()?;
    hush(&town.stranger)?;
    let mut gateway = Gateway::init(&town)?;
    gateway.configure(|config| {
        let keep: toml_edit::Array = ["22/tcp"].into_iter().collect();
        config["firewall"]["keep-open"] = value(keep);
    })?;
    gateway.start()?;
    let junk = random::<512>()?;
    let taken = town.stranger.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        let mut dice = 0x9E37_79B9_7F4A_7C15_u64;
        let mut taken = Vec::with_capacity(samples);
        for _ in 0..samples {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let neighbour = dice >> 63 == 1;
            let port = PORT + u16::from(neighbour);
            for _ in 0..BURST {
                // A full queue of the interface is no failure of the scanner.
                let _perhaps_refused = socket.send_to(&junk, endpoint(GATEWAY, port));
            }
            let begun = Instant::now();
            // Nobody listens behind it: that it is refused is the answer.
            let _refused = TcpStream::connect_timeout(&endpoint(GATEWAY, 22), LOST);
            taken.push((neighbour, begun.elapsed()));
        }
        anyhow::Ok(taken)
    })??;
    let of = |which: bool| -> Vec<f64> {
        let times = taken
            .iter()
            .filter(|(neighbour, took)| *neighbour == which && *took < LOST);
        let mut micros: Vec<f64> = times.map(|(_, took)| took.as_secs_f64() * 1e6).collect();
        micros.sort_by(f64::total_cmp);
        // The slowest tenth is the machine's own.
        micros.truncate(micros.len() * 9 / 10);
        micros
    };
    let (knock, neighbour) = (of(false), of(true));
    let median = |sorted: &[f64]| sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
    table.put(
        Row::new(
            "scanner-t",
            "an open port after the knock port and after its neighbour: |t|",
            welch(&knock, &neighbour),
            "",
        )
        .within(Budget::Most(CERTAIN))
        .detail(format!(
            "medians {:.1} and {:.1} µs, {samples} questions",
            median(&knock),
            median(&neighbour)
        )),
    );
    Ok(())
}

/// Welch's t, without its sign.
#[expect(clippy::cast_precision_loss, reason = "some thousands")]
fn welch(one: &[f64], other: &[f64]) -> f64 {
    let of = |times: &[f64]| {
        let count = times.len().max(2) as f64;
        let mean = times.iter().sum::<f64>() / count;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((mean, error), (other, others)) = (of(one), of(other));
    (mean - other).abs() / (error + others).sqrt()
}
