//! From the flags to the main loop: what is set up in which order, and what is undone when a step fails.
//!
//! Sockets first, for they change nothing; then the table, so that the machine is dark before WireGuard
//! listens; then WireGuard; then privilege goes, and orders are taken until the daemon closes its end. The
//! table stays behind: closed, its elements lapsing.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use spa_order::{Backend, Hello, Order};
use spa_wireguard::{Interface, WireguardError};

use crate::conntrack::Conntrack;
use crate::enforcer::{Enforcer, Fatal};
use crate::flags::Flags;
use crate::forgetter::{Forgetter, ForgetterError};
use crate::handover::{Handover, HandoverError};
use crate::limits::Limits;
use crate::netlink::Link;
use crate::nft::{AccessLog, Plan, Table, unasked, unguarded, warnings};
use crate::orders::{LinkError, Orders};
use crate::privilege::{self, PrivilegeError};
use crate::say::say;
use crate::user::{User, UserError};
use crate::watch::{Changed, Watch};

/// Bytes of an IP packet inside the tunnel: 1500 less 80 for IPv6, UDP and WireGuard around it.
const TUNNEL_MTU: u32 = 1420;

/// How many orders are looked at together: as many as the daemon has on their way at once.
const TOGETHER: usize = 64;

/// How often the kernel's WireGuard is looked at: it does not say what others change in it, and nobody's peer may stay changed
/// for longer than 2 s. A look is one dump of all peers.
const GLANCE: Duration = Duration::from_millis(1500);

/// Why the enforcer cannot start or go on; one line each.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket to the daemon.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Capabilities or seccomp.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// The tunnel user.
    #[error(transparent)]
    User(#[from] UserError),
    /// Interfaces and sockets.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// WireGuard.
    #[error(transparent)]
    Wireguard(#[from] WireguardError),
    /// The thread for tracked connections.
    #[error(transparent)]
    Forgetter(#[from] ForgetterError),
    /// The end of something we cannot do without.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The kernel has no nf_tables, or the table was refused.
    #[error("cannot make table inet spa: {0}{hint}", hint = nf_tables_hint(.0))]
    Table(io::Error),
    /// The administrator's rules let something by.
    #[error("{first} (until then table inet spa shuts the tunnel{})", also(*others))]
    Unguarded {
        /// The first thing that is missing.
        first: String,
        /// How many more there are.
        others: usize,
    },
    /// Another call to the kernel.
    #[error("cannot {what}: {source}")]
    Kernel {
        /// What for.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn also(others: usize) -> String {
    match others {
        0 => String::new(),
        others => format!("; `spa-gateway check` names {others} more"),
    }
}

fn nf_tables_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::EINVAL) => {
            " (has this kernel nf_tables with sets of intervals? Linux 5.6 or newer is needed)"
        }
        Some(libc::ENOENT) => {
            " (a part of nf_tables is missing from this kernel: nft_ct, nft_fib_inet, and nft_masq for masquerade)"
        }
        _ => "",
    }
}

/// Sets everything up and serves until the daemon goes.
///
/// # Errors
/// See [`ServeError`]. A failed start leaves no table where there was none and no interface.
pub fn serve(flags: &Flags) -> Result<(), ServeError> {
    let orders = Arc::new(Orders::from_stdin()?);
    privilege::check()?;
    let user = User::find(&flags.tunnel_user)?;
    let mut handover = Handover::open(&flags.plan, flags.credentials)?;
    let kernel = |what| move |source| ServeError::Kernel { what, source };
    let routes = Link::route().map_err(kernel("ask for routes"))?;
    let conntrack = Conntrack::open().map_err(kernel("ask for tracked connections"))?;
    if conntrack.is_none() {
        say(format_args!(
            "warning: this kernel has no nf_conntrack_netlink: tracked connections of ended \
             sessions lapse by themselves (nothing passes by them)"
        ));
    }
    // Before the first look: what is changed behind it is heard of.
    let knock = handover.knock();
    let mut watch = Watch::begin(&flags.plan.knock, &knock).map_err(kernel("watch the machine"))?;
    let mut netfilter = Link::netfilter().map_err(kernel("reach nf_tables"))?;
    let unguarded = unguarded(&mut netfilter, &flags.plan).map_err(ServeError::Table)?;
    if let Some((first, others)) = unguarded.split_first() {
        Table::shut(netfilter, &flags.plan).map_err(ServeError::Table)?;
        return Err(ServeError::Unguarded {
            first: first.clone(),
            others: others.len(),
        });
    }
    let foreign = warnings(&mut netfilter, &flags.plan).map_err(ServeError::Table)?;
    for warning in foreign {
        say(format_args!("warning: {warning}"));
    }
    let table = create(netfilter, &flags.plan, &mut handover).map_err(ServeError::Table)?;
    let (wireguard, table) = prepare(flags, user, table)?;
    watch.tunnel(wireguard.name(), wireguard.index());
    let hello = Hello {
        backend: match wireguard.backend() {
            spa_wireguard::Backend::Kernel => Backend::Kernel,
            spa_wireguard::Backend::Embedded => Backend::Embedded,
        },
        wireguard: wireguard.index(),
        replies: handover.replies(),
        knock: handover.knock(),
        tags: handover.tags(),
        access: handover.access().access(),
    };
    let forgetter = Forgetter::start(conntrack, Arc::clone(&orders))?;
    let limits = Limits::new(flags);
    let enforcer = Enforcer::new(limits, flags.max_peers, table, wireguard, routes, forgetter)?;
    privilege::give_up()?;
    orders.hello(&hello, &handover.descriptors())?;
    drop(handover);
    take_orders(&orders, enforcer, watch)
}

/// Makes the machine dark where no table of ours does so yet; one that is there may have sessions.
///
/// # Errors
/// See [`ServeError`].
pub fn close(flags: &Flags) -> Result<(), ServeError> {
    privilege::check()?;
    let netfilter = Link::netfilter().map_err(|source| ServeError::Kernel {
        what: "reach nf_tables",
        source,
    })?;
    Table::create_if_absent(netfilter, &flags.plan).map_err(ServeError::Table)
}

/// Takes interface and table away, and so all that is open; the machine is dark no longer.
///
/// # Errors
/// See [`ServeError`].
pub fn clear(flags: &Flags) -> Result<(), ServeError> {
    privilege::check()?;
    let netfilter = Link::netfilter().map_err(|source| ServeError::Kernel {
        what: "reach nf_tables",
        source,
    })?;
    // The interface first: without the table nothing would hold back what comes out of it.
    Interface::remove(&flags.plan.tunnel)?;
    Table::remove_if_there(netfilter).map_err(|source| ServeError::Kernel {
        what: "remove table inet spa",
        source,
    })
}

/// Says what is in the way, one line each.
///
/// # Errors
/// See [`ServeError`].
pub fn look(flags: &Flags) -> Result<(), ServeError> {
    let kernel = |what| move |source| ServeError::Kernel { what, source };
    privilege::check()?;
    let mut netfilter = Link::netfilter().map_err(kernel("reach nf_tables"))?;
    let foreign = warnings(&mut netfilter, &flags.plan).map_err(kernel("list the chains"))?;
    let unasked = unasked(&mut netfilter, &flags.plan).map_err(kernel("list the rules of fw4"))?;
    let unguarded =
        unguarded(&mut netfilter, &flags.plan).map_err(kernel("list the administrator's rules"))?;
    let mut out = io::stdout();
    for problem in unguarded {
        writeln!(out, "problem: {problem}").map_err(kernel("say what is missing"))?;
    }
    for warning in foreign.iter().map(ToString::to_string).chain(unasked) {
        writeln!(out, "warning: {warning}").map_err(kernel("say what is in the way"))?;
    }
    Ok(())
}

/// Makes the table, without the access log where the kernel has what tells of it (nfnetlink_log) and not the rule that would
/// have it told (nft_log).
fn create(netfilter: Link, plan: &Plan, handover: &mut Handover) -> io::Result<Table> {
    let with = |access_log| Plan {
        access_log,
        ..plan.clone()
    };
    let asked = handover.access().log();
    match Table::create(netfilter, &with(asked)) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) && asked == AccessLog::On => {
            let table = Table::create(Link::netfilter()?, &with(AccessLog::Off))?;
            say(format_args!(
                "warning: no access log: this kernel has no nft_log"
            ));
            handover.without_access();
            Ok(table)
        }
        outcome => outcome,
    }
}

/// Makes the interface; if that fails, a table that was not there before goes again.
fn prepare(flags: &Flags, user: User, mut table: Table) -> Result<(Interface, Table), ServeError> {
    let plan = spa_wireguard::Plan {
        name: &flags.plan.tunnel,
        listen_port: flags.plan.wireguard_port,
        addresses: &flags.plan.addresses,
        mtu: TUNNEL_MTU,
        backend: flags.backend,
        tunnel_program: &tunnel_program(),
        tunnel_uid: user.uid,
        tunnel_gid: user.gid,
    };
    match Interface::create(&plan) {
        Ok(wireguard) => Ok((wireguard, table)),
        Err(error) => {
            // The first error is the one to report.
            let _ = table.undo();
            Err(error.into())
        }
    }
}

/// `spa-tunnel` beside our own executable, else wherever the system finds it.
fn tunnel_program() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name("spa-tunnel"));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("spa-tunnel"))
}

fn take_orders(
    orders: &Orders,
    mut enforcer: Enforcer,
    mut watch: Watch,
) -> Result<(), ServeError> {
    let mut glance = Glance::of(enforcer.wireguard().backend());
    loop {
        let ready = ready(orders, enforcer.wireguard(), &watch, glance.left())?;
        if ready.wireguard {
            enforcer.wireguard().check().map_err(Fatal::Wireguard)?;
        }
        if ready.order {
            let Some(first) = orders.next()? else {
                return Ok(());
            };
            let together = take_more(orders, first)?;
            enforcer.perform_all(&together, |seq, answer| orders.answer(seq, answer))??;
        }
        // Behind the answer: our own change of the table is heard too, and nobody waits for this look at it.
        if ready.change {
            let (table, opened) = enforcer.table();
            if let Err(changed) = watch.look(table, opened) {
                return Err(closed(enforcer, changed)?.into());
            }
        }
        if glance.is_due() {
            enforcer.undo_others()?;
            glance.over();
        }
    }
}

/// Takes the interface away where no rule would guard it any more.
fn closed(enforcer: Enforcer, changed: Changed) -> Result<Fatal, Fatal> {
    match changed {
        Changed::TunnelRenamed { .. } => enforcer.remove_tunnel().map_err(Fatal::Wireguard)?,
        Changed::TableGone
        | Changed::Meddled
        | Changed::Renamed { .. }
        | Changed::MadeAnew(_)
        | Changed::TunnelGone(_)
        | Changed::Peers { .. }
        | Changed::Blind(_) => {}
    }
    Ok(changed.into())
}

/// When the kernel's WireGuard is looked at next; never, where nobody but us can reach it.
struct Glance(Option<Instant>);

impl Glance {
    fn of(backend: spa_wireguard::Backend) -> Self {
        match backend {
            spa_wireguard::Backend::Kernel => Self(Some(Instant::now() + GLANCE)),
            spa_wireguard::Backend::Embedded => Self(None),
        }
    }

    fn left(&self) -> Option<Duration> {
        self.0
            .map(|due| due.saturating_duration_since(Instant::now()))
    }

    fn is_due(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    fn over(&mut self) {
        self.0 = Some(Instant::now() + GLANCE);
    }
}

/// Takes what came with the first order, in its order.
fn take_more(orders: &Orders, first: (u64, Order)) -> Result<Vec<(u64, Order)>, LinkError> {
    let mut together = Vec::with_capacity(TOGETHER);
    together.push(first);
    while together.len() < TOGETHER
        && let Some(order) = orders.another()?
    {
        together.push(order);
    }
    Ok(together)
}

/// What has something for us.
struct Ready {
    order: bool,
    wireguard: bool,
    change: bool,
}

fn ready(
    orders: &Orders,
    wireguard: &Interface,
    watch: &Watch,
    left: Option<Duration>,
) -> Result<Ready, ServeError> {
    let [tables, interfaces] = watch.poll();
    let mut fds = [
        PollFd::from_borrowed_fd(orders.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(wireguard.as_fd(), PollFlags::IN),
        tables,
        interfaces,
    ];
    // No longer than a glance, which a timespec has room for.
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(&mut fds, left.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => {
            let source = error.into();
            return Err(ServeError::Kernel {
                what: "wait for orders",
                source,
            });
        }
    }
    let [order, wireguard, tables, interfaces] = fds.map(|fd| !fd.revents().is_empty());
    Ok(Ready {
        order,
        wireguard,
        change: tables || interfaces,
    })
}
