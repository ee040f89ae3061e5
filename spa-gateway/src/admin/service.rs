//! Who starts the gateway on this machine, and what an administrator types for it.

use std::path::Path;

use super::openwrt;

/// What there is only where systemd is the first process (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

/// Who starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// OpenWrt's init script.
    Procd,
    /// Debian's unit.
    Systemd,
    /// A container, or by hand.
    Nobody,
}

impl Keeper {
    /// This machine's.
    #[must_use]
    pub fn here() -> Self {
        Self::of(openwrt::is_here(), Path::new(SYSTEMD).exists())
    }

    fn of(openwrt: bool, systemd: bool) -> Self {
        match (openwrt, systemd) {
            (true, _) => Self::Procd,
            (false, true) => Self::Systemd,
            (false, false) => Self::Nobody,
        }
    }

    /// What starts it now.
    #[must_use]
    pub fn start(self) -> &'static str {
        match self {
            Self::Procd => "`/etc/init.d/spa-gateway start`",
            Self::Systemd => "`systemctl start spa-gateway`",
            Self::Nobody => "`spa-gateway run`, or its container",
        }
    }

    /// What starts it now and at every boot.
    #[must_use]
    pub fn enable(self) -> &'static str {
        match self {
            Self::Procd => "`/etc/init.d/spa-gateway enable; /etc/init.d/spa-gateway start`",
            Self::Systemd => "`systemctl enable --now spa-gateway`",
            Self::Nobody => self.start(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_a_command_his_machine_does_not_have() {
        assert!(Keeper::of(true, false).start().contains("/etc/init.d/"));
        assert!(Keeper::of(true, false).enable().contains("enable"));
        assert!(
            Keeper::of(false, true)
                .enable()
                .contains("systemctl enable")
        );
        for told in [
            Keeper::of(false, false).start(),
            Keeper::of(false, false).enable(),
        ] {
            assert!(!told.contains("systemctl") && !told.contains("init.d"));
        }
    }
}
