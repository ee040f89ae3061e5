//! One transaction on the wire: packets out by the schedule, the reply in, the port to WireGuard and back.
//!
//! The decisions are in [`crate::schedule`]; here are sockets, keys and clocks.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use spa_proto::{
    DefaultRoute, DerivedKeys, Ext, Info, KnockPublic, Outcome, PendingKnock, ReplyPayload,
    ReplySecrets, Request, Signer, WallTime, build_knock,
};

use crate::clock;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::schedule::{End, Goal, Next, PACKETS, Says, Schedule};
use crate::wire::{Wire, WireError};

/// What is asked, and the keys to ask it with: the same for every packet of the transaction (SPEC §10).
pub struct Knocking<'a> {
    keys: &'a DerivedKeys,
    knock_key: (u8, KnockPublic),
    info: Info,
    ext: Ext,
    signer: Signer<'a>,
}

impl<'a> Knocking<'a> {
    /// Fixes `info` and `ext`.
    ///
    /// # Errors
    /// When the request does not fit the wire.
    pub fn new(
        keys: &'a DerivedKeys,
        knock_key: (u8, KnockPublic),
        request: &Request,
        signer: Signer<'a>,
    ) -> Result<Self, WireError> {
        let (info, ext) = request.encode()?;
        Ok(Self {
            keys,
            knock_key,
            info,
            ext,
            signer,
        })
    }

    /// Builds one packet: fresh e, fresh proof, the slot of this moment (SPEC §5).
    fn packet(&self) -> Result<([u8; 512], PendingKnock), WireError> {
        let mut e = [0; 32];
        getrandom::fill(&mut e).map_err(WireError::Random)?;
        let (kid, key) = &self.knock_key;
        let slot = clock::wall().slot();
        Ok(build_knock(
            self.keys,
            *kid,
            key,
            slot,
            e,
            &self.info,
            &self.ext,
            self.signer,
        )?)
    }
}

/// The reply that counts.
pub struct Reply {
    /// What it says.
    pub payload: ReplyPayload,
    /// What it gives.
    pub secrets: ReplySecrets,
    /// Where it came from.
    pub from: SocketAddr,
    /// When, by the wall.
    pub wall: WallTime,
    /// When, by [`clock::boot`].
    pub boot: Duration,
}

/// WireGuard, as a transaction sees it.
pub trait TunnelSide {
    /// Takes the port and starts the handshake.
    ///
    /// # Errors
    /// Ends the transaction.
    fn raise(&mut self, reply: &Reply, port: u16) -> Result<(), Failure>;

    /// Waits for the first handshake, `patience` at most.
    ///
    /// # Errors
    /// Ends the transaction.
    fn wait_handshake(&mut self, patience: Duration) -> Result<Handshake, Failure>;

    /// Gives the port back, leaving nothing behind.
    ///
    /// # Errors
    /// Ends the transaction.
    fn lower(&mut self) -> Result<(), Failure>;
}

/// Whether the first handshake is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Done.
    Done,
    /// Not yet.
    NotYet,
}

/// How a transaction went.
pub struct Exchanged {
    /// How it ended.
    pub end: End,
    /// The reply that counts.
    pub reply: Option<Reply>,
    /// How many packets left.
    pub packets: usize,
    /// From the first packet to the first valid reply.
    pub reply_after: Option<Duration>,
    /// From the first packet to the handshake.
    pub handshake_after: Option<Duration>,
}

/// Runs one transaction. With a tunnel it lasts until the first handshake, without one until the first reply.
///
/// # Errors
/// When nothing at all could be sent, or this machine lets us down; silence is no error here.
pub fn exchange(
    wire: &mut Wire,
    knocking: &Knocking<'_>,
    mut tunnel: Option<&mut dyn TunnelSide>,
    progress: &mut Progress,
) -> Result<Exchanged, Failure> {
    let goal = if tunnel.is_some() {
        Goal::Tunnel
    } else {
        Goal::Reply
    };
    let mut schedule: Schedule<PendingKnock, Reply> = Schedule::new(goal, wire.addresses().len());
    let mut notes = Notes {
        start: Instant::now(),
        reply_after: None,
        handshake_after: None,
        send_error: None,
        failed: 0,
    };
    let mut raised = false;
    let end = loop {
        let now = notes.start.elapsed();
        match schedule.poll(now) {
            Next::Send { packet, address } => {
                progress_of_packet(progress, packet);
                let (bytes, pending) = knocking.packet()?;
                match wire.send(address, &bytes) {
                    Ok(()) => schedule.sent(address, pending, now),
                    Err(error) => {
                        schedule.not_sent(now);
                        notes.failed += 1;
                        notes.send_error = Some((address, error));
                    }
                }
            }
            Next::Wait(until) => {
                let patience = progress.patience(until.saturating_sub(now));
                match tunnel.as_deref_mut().filter(|_| raised) {
                    Some(tunnel) => {
                        if tunnel.wait_handshake(patience)? == Handshake::Done {
                            notes.handshake_after = Some(notes.start.elapsed());
                            schedule.handle_handshake();
                        }
                    }
                    None => receive(wire, &mut schedule, patience, &mut notes)?,
                }
                progress.tick();
            }
            Next::RaiseTunnel => {
                let tunnel = tunnel
                    .as_deref_mut()
                    .expect("Goal::Reply never raises a tunnel");
                let (_, reply) = schedule
                    .reply()
                    .expect("a tunnel is raised after a reply only");
                progress.phase("Waiting for the WireGuard handshake");
                wire.yield_port();
                tunnel.raise(reply, wire.port())?;
                raised = true;
            }
            Next::LowerTunnel => {
                let tunnel = tunnel
                    .as_deref_mut()
                    .expect("Goal::Reply never raises a tunnel");
                tunnel.lower()?;
                raised = false;
                wire.retake_port()?;
            }
            Next::Over(end) => break end,
        }
    };
    if end == End::NoHandshake
        && raised
        && let Some(tunnel) = tunnel
    {
        tunnel.lower()?;
    }
    notes.told(wire, end)?;
    Ok(Exchanged {
        end,
        packets: schedule.packets_sent(),
        reply: schedule.into_reply(),
        reply_after: notes.reply_after,
        handshake_after: notes.handshake_after,
    })
}

/// What is noted along the way.
struct Notes {
    start: Instant,
    reply_after: Option<Duration>,
    handshake_after: Option<Duration>,
    send_error: Option<(usize, io::Error)>,
    failed: usize,
}

impl Notes {
    /// Tells silence from a machine that could send nothing.
    fn told(&mut self, wire: &Wire, end: End) -> Result<(), WireError> {
        match self.send_error.take() {
            Some((address, source)) if end == End::Silence && self.failed == PACKETS => {
                let to = wire
                    .addresses()
                    .get(address)
                    .map_or_else(String::new, ToString::to_string);
                Err(WireError::NothingSent { to, source })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn receive(
    wire: &Wire,
    schedule: &mut Schedule<PendingKnock, Reply>,
    patience: Duration,
    notes: &mut Notes,
) -> Result<(), WireError> {
    let Some(received) = wire.receive(patience)? else {
        return Ok(());
    };
    let wall = clock::wall();
    let opened = schedule
        .unanswered(received.address)
        .find_map(|(index, pending)| {
            Some((
                index,
                pending
                    .open_reply(&received.payload, wall, DefaultRoute::Refuse)
                    .ok()?,
            ))
        });
    // What does not open is no reply: noise, or an answer we may not use (SPEC §6).
    let Some((index, (payload, secrets))) = opened else {
        return Ok(());
    };
    let Some(from) = wire.addresses().get(received.address).copied() else {
        return Ok(());
    };
    let now = notes.start.elapsed();
    notes.reply_after.get_or_insert(now);
    let says = match payload.outcome {
        Outcome::Session(_) => Says::Grant,
        Outcome::Closed { .. } | Outcome::Refused { .. } | Outcome::Enrolled(_) => Says::Final,
    };
    let gateway_time = payload.gateway_time;
    let reply = Reply {
        payload,
        secrets,
        from,
        wall,
        boot: clock::boot(),
    };
    schedule.handle_reply(index, gateway_time, says, reply, now);
    Ok(())
}

fn progress_of_packet(progress: &mut Progress, packet: usize) {
    if packet > 0 {
        progress.phase(format!(
            "No reply yet, knocking again ({} of {PACKETS})",
            packet + 1
        ));
    }
}
