//! Why an administrator's wish is not done: one line, what, why, what to do.

use alloc::string::String;
use core::fmt;

use crate::name::Name;

/// Why it was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminRefusal {
    /// Somebody of that name exists.
    PersonExists(Name),
    /// Nobody of that name exists.
    NoPerson(Name),
    /// The person or machine is disabled.
    PersonDisabled(Name),
    /// It is a machine, which has no phone.
    Machine(Name),
    /// No device of that person has this label.
    NoDevice(Name, String),
    /// The device has not completed its enrolment, so there are no four words.
    NotEnrolled(Name, String),
    /// The four words were compared already.
    AlreadyConfirmed(Name, String),
    /// There is no room for another.
    Full {
        /// Of what.
        what: &'static str,
        /// The most.
        most: usize,
    },
    /// An invite must be valid for some time, and not for ever.
    BadValidity,
    /// The selector names nothing that is live.
    NoSession,
    /// A lock, a grant or an approval must last for some time, and not for ever.
    BadLength,
    /// There is no such lock.
    NoLock(String),
    /// The policy knows no such resource.
    NoResource(Name),
    /// No grant or approval has this number.
    NoException(u32),
    /// No request with this number waits.
    NoRequest(u32),
    /// The rule does not let this person approve for that one.
    MayNotApprove(Name),
}

impl fmt::Display for AdminRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PersonExists(name) => write!(
                f,
                "`{name}` exists already; choose another name, or put `{name}` into a group in the policy file"
            ),
            Self::NoPerson(name) => write!(
                f,
                "there is no user `{name}`; `spa-admin user list` shows all"
            ),
            Self::PersonDisabled(name) => {
                write!(
                    f,
                    "user `{name}` is disabled; `spa-admin user enable {name}` comes first"
                )
            }
            Self::Machine(name) => write!(
                f,
                "`{name}` is a machine and has neither phone nor recovery codes"
            ),
            Self::NoDevice(name, label) => {
                write!(
                    f,
                    "user `{name}` has no device `{label}`; `spa-admin device list` shows all"
                )
            }
            Self::NotEnrolled(name, label) => {
                write!(
                    f,
                    "device `{name}/{label}` has not enrolled yet, so there are no words to compare"
                )
            }
            Self::AlreadyConfirmed(name, label) => {
                write!(f, "device `{name}/{label}` is confirmed already")
            }
            Self::Full { what, most } => write!(f, "no more than {most} {what}; remove some first"),
            Self::BadValidity => f.write_str("an invite is valid from one minute to thirty days"),
            Self::BadLength => f.write_str("it lasts from ten seconds to thirty days"),
            Self::NoLock(target) => {
                write!(
                    f,
                    "there is no lock on {target}; `spa-admin lock list` shows all"
                )
            }
            Self::NoResource(name) => write!(
                f,
                "the policy has no resource `{name}`; `spa-admin resource list` shows all"
            ),
            Self::NoException(id) => write!(
                f,
                "there is no grant or approval {id}; `spa-admin grant list` shows all"
            ),
            Self::NoRequest(id) => write!(
                f,
                "no request {id} waits for an approval; `spa-admin approve list` shows all"
            ),
            Self::MayNotApprove(name) => write!(
                f,
                "`{name}` is not in `approve` of that rule, or is the one who asks; somebody else has to"
            ),
            Self::NoSession => {
                f.write_str("no live session matches; `spa-admin session list` shows the live ones")
            }
        }
    }
}

impl core::error::Error for AdminRefusal {}
