//! When does time alone let another allow decide? Its window opens, it may be stricter than the one a session lives by, and
//! the session is to be held against policy then.

use spa_proto::WallTime;

use super::Policy;
use super::request::Request;
use super::rule::Effect;
use super::zone::instant_at;

impl Policy {
    /// Gives when the next window of an allow for this person and resource opens.
    pub(crate) fn turns_at(&self, request: &Request<'_>) -> Option<WallTime> {
        let face = self.zone.face(request.at?);
        let atoms = self.index.atoms_of(request.person);
        let rules = self.index.rules_of(request.resource).iter();
        let speaking = rules.filter(|at| self.index.speaks(**at, atoms));
        let allows = speaking
            .filter_map(|at| self.rules.get(*at))
            .filter(|rule| rule.effect == Effect::Allow);
        let closed = allows
            .filter_map(|rule| rule.conditions.when.as_ref())
            .filter(|when| when.closes(&self.zone, &face).is_none());
        closed
            .filter_map(|when| when.opens(&self.zone, &face))
            .map(instant_at)
            .min()
    }
}
