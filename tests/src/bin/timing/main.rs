//! `make timing`: does the time of a comparison hang on a secret? Statistics after dudect (Reparaz, Balasch, Verbauwhede, 2017).
//!
//! Two classes of inputs that differ only in how near they come to a secret, in random order; Welch's t of the two means, with the
//! slowest samples cut at several places, and the greatest |t| counts. Beyond 10 there is a difference for sure; below 4.5 none was
//! seen. The first line is a comparison that stops at the first difference: if it is not told, the machine is too noisy to tell
//! anything. A figure of a machine and an hour, so no part of `make test`.
#![forbid(unsafe_code)]

mod town;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use spa_gateway_core::{Call, CallId, Caller, EffectKind, Moment};
use spa_proto::{DefaultRoute, SealedKnock, SessionKey, WallTime, control_bearer, seal_reply};

use town::{NoDice, Town, Wrong};

/// Above it, two means differ for sure (dudect's own limit).
const CERTAIN: f64 = 10.0;
/// Below it, nothing was seen.
const SEEN: f64 = 4.5;
const NOW: WallTime = WallTime::from_millis(1_792_843_200_000);
const MONO: Moment = Moment::from_millis(1 << 40);
const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 51_820);
const THERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), 40_000);
const TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 2);

fn main() -> ExitCode {
    let samples = match std::env::args().nth(1).map(|text| text.parse::<usize>()) {
        None => 100_000,
        Some(Ok(samples)) if samples >= 1_000 => samples,
        Some(_) => {
            eprintln!("timing: the number of samples is a number from 1000 on");
            return ExitCode::from(2);
        }
    };
    println!(
        "{samples} samples each; |t| above {CERTAIN} is a difference, below {SEEN} none was seen\n"
    );
    let told = control(samples);
    if told < CERTAIN {
        println!(
            "\nThis machine does not even tell the first line: run it where less is going on."
        );
        return ExitCode::from(2);
    }
    let worst = [
        v_of_a_knock(samples),
        proof_of_a_session(samples),
        which_factor(samples / 10),
        how_near_a_code(samples / 10),
        bearer(samples),
        tag_of_a_reply(samples),
    ]
    .into_iter()
    .fold(0.0, f64::max);
    tag(samples);
    if worst > CERTAIN {
        println!("\nThe time of a comparison tells something.");
        return ExitCode::FAILURE;
    }
    println!("\nNo comparison told anything.");
    ExitCode::SUCCESS
}

/// A comparison that leaks: what this method must see.
fn control(samples: usize) -> f64 {
    let secret: [u8; 64] = std::array::from_fn(|at| u8::try_from(at).unwrap_or(0));
    let guess = |class| {
        let mut guess = secret;
        guess[if class { 63 } else { 0 }] ^= 1;
        guess
    };
    report(
        "a comparison that stops early (control)",
        samples,
        64,
        guess,
        |guess| secret.iter().zip(guess).all(|(a, b)| a == b),
    )
}

/// V of a knock: its first two bytes are right, or none.
fn v_of_a_knock(samples: usize) -> f64 {
    let town = Town::new();
    let (packet, _) = town.knock(Wrong::default(), 1);
    let right = SealedKnock::parse(&packet).expect("512 bytes").v();
    // The mask's nonce is V, so a near miss cannot be written down: a stranger cannot even try. With the keys the end of the body is
    // changed on and on until the MAC over it begins as V does.
    let agrees = |bytes: &[u8; 512], want: usize| {
        let computed = town.right_v(bytes);
        let equal = computed.iter().zip(right).take_while(|(a, b)| **a == *b);
        equal.count() == want
    };
    let find = |want| {
        let mut bytes = packet;
        (0..u32::MAX)
            .find_map(|number: u32| {
                bytes[508..].copy_from_slice(&number.to_be_bytes());
                agrees(&bytes, want).then_some(bytes)
            })
            .expect("some agree")
    };
    let both = [find(0), find(2)];
    let slot = NOW.slot();
    let sealed = |class| SealedKnock::parse(&both[usize::from(class)]).expect("shape");
    report(
        "V of a knock: two bytes right, none",
        samples,
        2,
        sealed,
        |sealed| sealed.unmask(&town.keys, slot).is_ok(),
    )
}

/// The MAC by which ROAM and CLOSE are proven: all of it right, or none.
fn proof_of_a_session(samples: usize) -> f64 {
    let town = Town::new();
    let (packet, _) = town.close(&town.session, 1);
    let sealed = SealedKnock::parse(&packet).expect("shape");
    let verified = sealed.unmask(&town.keys, NOW.slot()).expect("the MAC");
    let opened = verified
        .open(&town.keys, |_| Some(&town.secret))
        .expect("opens");
    let key = |class| SessionKey::from_bytes([if class { 3 } else { 0x5A }; 32]);
    report(
        "the proof of a ROAM: right, wrong",
        samples,
        2,
        key,
        |key| opened.verify_session_proof(key).unwrap_u8(),
    )
}

/// A knock whose password is wrong, or whose code is: refused alike, after the same time (SPEC §8 step 10).
fn which_factor(samples: usize) -> f64 {
    let wrong_password = Wrong {
        password: true,
        code: None,
    };
    let wrong_code = Wrong {
        password: false,
        code: Some(Town::no_code()),
    };
    refused(
        "which factor is wrong: password, code",
        samples,
        wrong_password,
        wrong_code,
    )
}

/// A code that was used, or one that never was any: the first would be worth something a minute ago.
fn how_near_a_code(samples: usize) -> f64 {
    let used = Wrong {
        password: false,
        code: Some(Town::code(NOW.as_millis() / 30_000 - 1)),
    };
    let none = Wrong {
        password: false,
        code: Some(Town::no_code()),
    };
    refused("a code: used before, of no step", samples, used, none)
}

fn refused(name: &str, samples: usize, first: Wrong, second: Wrong) -> f64 {
    let town = Town::new();
    // Verifying a signature takes as long as its (public) numbers make it: many of each, so that no single one counts.
    let packets = [first, second].map(|wrong| {
        (0..=u8::MAX)
            .map(|e| town.knock(wrong, e).0)
            .collect::<Vec<_>>()
    });
    let mut turn = 0_usize;
    report_with(name, samples, |class| {
        turn += 1;
        let packet = packets[usize::from(class)][turn % 256];
        let mut gateway = town.gateway();
        let taken = gateway.handle_datagram(town.datagram(&packet), town.now);
        assert!(taken.is_ok(), "{taken:?}");
        let begun = Instant::now();
        let outcome = black_box(gateway.handle_work(town.now, &mut NoDice));
        let took = begun.elapsed();
        assert!(outcome.is_some_and(|outcome| outcome.is_err()));
        took
    })
}

/// A tag of nobody: seven bytes are those of somebody's, or none. A look-up in an ordered set tells where in the set it ended, and may:
/// every knock shows its tag, which is worth nothing without the MAC behind it. Shown, not judged.
fn tag(samples: usize) {
    let town = Town::new();
    let mut gateway = town.gateway();
    let (packet, _) = town.knock(Wrong::default(), 3);
    let bytes = |class| {
        let mut bytes = packet;
        if class {
            bytes[7] ^= 1;
        } else {
            bytes[0] ^= 0x80;
        }
        bytes
    };
    report(
        "(a tag of nobody: seven bytes right, none)",
        samples,
        16,
        bytes,
        |bytes| {
            gateway
                .handle_datagram(town.datagram(bytes), town.now)
                .is_err()
        },
    );
}

/// What stands behind `Authorization: Bearer`: all but the last digit is right, or the first is wrong.
fn bearer(samples: usize) -> f64 {
    let town = Town::new();
    let mut gateway = town.with_session();
    let right = control_bearer(&town.session);
    let guess = |class| {
        let mut guess: [u8; 64] = right.as_bytes().try_into().expect("32 bytes in hex");
        guess[if class { 63 } else { 0 }] ^= 1;
        guess
    };
    report(
        "a bearer: the last digit wrong, the first",
        samples,
        4,
        guess,
        |guess| {
            let caller = Caller {
                source: TUNNEL.into(),
                bearer: guess,
            };
            gateway.handle_call(CallId(1), caller, Call::Grants, town.now, &mut NoDice);
            // The answer is taken away, so that none piles up.
            gateway
                .poll_effect()
                .is_some_and(|effect| matches!(effect.kind, EffectKind::Answer { .. }))
        },
    )
}

/// RT of a reply, at the client: seven bytes right, or none.
fn tag_of_a_reply(samples: usize) -> f64 {
    let town = Town::new();
    let (packet, pending) = town.knock(Wrong::default(), 4);
    let sealed = SealedKnock::parse(&packet).expect("shape");
    let verified = sealed.unmask(&town.keys, NOW.slot()).expect("the MAC");
    let opened = verified
        .open(&town.keys, |_| Some(&town.secret))
        .expect("opens");
    let reply = seal_reply(&opened.reply_keys(), [7; 32], &[0; 456])
        .expect("seals")
        .packet;
    let guess = |class| {
        let mut guess = reply;
        if class {
            guess[7] ^= 1;
        } else {
            guess[0] ^= 0x80;
        }
        guess
    };
    report(
        "RT of a reply: seven bytes right, none",
        samples,
        4,
        guess,
        |guess| {
            pending
                .open_reply(guess, NOW, DefaultRoute::Refuse)
                .is_err()
        },
    )
}

/// Measures `times` calls a sample, so that the clock's own grain does not matter. What differs is made anew for each, in one place.
fn report<I, T>(
    name: &str,
    samples: usize,
    times: u32,
    prepare: impl Fn(bool) -> I,
    mut call: impl FnMut(&I) -> T,
) -> f64 {
    report_with(name, samples, |class| {
        let input = black_box(prepare(class));
        let begun = Instant::now();
        for _ in 0..times {
            black_box(call(black_box(&input)));
        }
        begun.elapsed()
    })
}

fn report_with(name: &str, samples: usize, mut sample: impl FnMut(bool) -> Duration) -> f64 {
    let mut dice = 0x9E37_79B9_7F4A_7C15_u64;
    let mut toss = || {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice >> 63 == 1
    };
    // What is cold or grows at first is not counted.
    for _ in 0..samples / 20 {
        sample(toss());
    }
    let mut taken: Vec<(bool, f64)> = Vec::with_capacity(samples);
    for _ in 0..samples {
        let class = toss();
        taken.push((class, sample(class).as_nanos() as f64));
    }
    let mut sorted: Vec<f64> = taken.iter().map(|(_, nanos)| *nanos).collect();
    sorted.sort_by(f64::total_cmp);
    // Interrupts make a long tail: it is cut at several places, and the clearest answer counts.
    let worst = [1.0, 0.99, 0.95, 0.9, 0.75, 0.5]
        .map(|part| {
            let limit = sorted[((samples as f64 * part) as usize).clamp(1, samples) - 1];
            welch(taken.iter().filter(|(_, nanos)| *nanos <= limit))
        })
        .into_iter()
        .fold(0.0, f64::max);
    let verdict = match worst {
        t if t > CERTAIN => "DIFFERS",
        t if t > SEEN => "perhaps",
        _ => "same",
    };
    println!(
        "{name:<46} |t| {worst:8.2}  {verdict:<8} median {:9.0} ns",
        sorted[samples / 2]
    );
    worst
}

/// Welch's t of the two classes, without its sign.
fn welch<'a>(samples: impl Iterator<Item = &'a (bool, f64)>) -> f64 {
    let mut sums = [(0.0, 0.0, 0.0); 2];
    for (class, nanos) in samples {
        let (count, mean, squares) = &mut sums[usize::from(*class)];
        *count += 1.0;
        let away = nanos - *mean;
        *mean += away / *count;
        *squares += away * (nanos - *mean);
    }
    let [(n, mean, squares), (m, other, others)] = sums;
    if n < 100.0 || m < 100.0 {
        return 0.0;
    }
    let error = (squares / (n - 1.0) / n + others / (m - 1.0) / m).sqrt();
    if error == 0.0 {
        0.0
    } else {
        ((mean - other) / error).abs()
    }
}
