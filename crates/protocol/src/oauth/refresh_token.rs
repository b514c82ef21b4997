//! Rotation of refresh tokens, and what a repeated one means (RFC 9700 §4.14.2, OAuth 2.1 §4.3.1).
//!
//! Real clients refresh one grant from several machines at once and lose answers, so strict
//! single use would disconnect them. Here the predecessor of the live token gets the *same* answer
//! again for a short while; anything older, or later, is taken for theft.

use std::time::Duration;

use super::{
    error::OAuthError,
    grant::{Asked, Grant},
    scope::Scope,
};
use crate::{policy::TokenPolicy, ports::Timestamp};

/// How long the live token may be given again to who holds its predecessor, as long as nothing of
/// the live generation was ever used: the first answer never arrived.
pub const LOST_ANSWER: Duration = Duration::from_hours(24);

/// What a genuine refresh token of some generation leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It is the live one: it is succeeded by the next generation.
    Rotate { to: u32 },
    /// It is the predecessor: the live one is given again.
    Repeat { generation: u32, why: Repeated },
    /// It is from a generation that the store does not know yet, so the store lost writes: it is
    /// taken as the live one.
    Heal { to: u32 },
    /// It is one that nobody should have any more: the family ends.
    Reuse,
}

/// Why the live token is given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeated {
    /// Two requests raced, or one was sent twice.
    WithinWindow,
    /// The answer was lost on its way.
    AnswerLost,
}

impl Grant {
    /// Decides what becomes of a refresh request with the token of `generation`, whose MAC was
    /// found right. Asks nothing of the outside world.
    pub fn rotate(
        &self,
        generation: u32,
        asked: &Asked,
        now: Timestamp,
        policy: &TokenPolicy,
    ) -> Result<Rotation, OAuthError> {
        if asked
            .scope
            .as_deref()
            .is_some_and(|scope| !self.scope.covers(scope))
        {
            return Err(OAuthError::invalid_scope("scope was not granted"));
        }
        if asked
            .resource
            .as_ref()
            .is_some_and(|resource| *resource != self.resource)
        {
            return Err(OAuthError::invalid_target("resource was not granted"));
        }
        if !self.is_live(now) {
            return Err(OAuthError::invalid_grant(
                "the grant was revoked or has expired",
            ));
        }
        if generation == self.generation {
            return Ok(Rotation::Rotate {
                to: next(generation)?,
            });
        }
        if generation > self.generation {
            return if policy.heal_store_regression {
                Ok(Rotation::Heal {
                    to: next(generation)?,
                })
            } else {
                Err(OAuthError::invalid_grant("the refresh token is not known"))
            };
        }
        if generation + 1 < self.generation {
            return Ok(Rotation::Reuse);
        }
        let age = now - self.rotated_at;
        let why = if age <= policy.refresh_retry_window {
            Repeated::WithinWindow
        } else if !self.access_used && age <= LOST_ANSWER {
            Repeated::AnswerLost
        } else {
            return Ok(Rotation::Reuse);
        };
        if self.less(asked) != self.rotated_with {
            return Err(OAuthError::invalid_grant(
                "a repeated refresh must ask for the same scope",
            ));
        }
        Ok(Rotation::Repeat {
            generation: self.generation,
            why,
        })
    }

    /// The scope that a request asks for in fact: unknown ones were never granted, and asking for
    /// all that was granted is the same as asking for nothing in particular.
    fn less(&self, asked: &Asked) -> Option<String> {
        asked
            .scope
            .as_deref()
            .map(Scope::known)
            .filter(|scope| !scope.is_empty() && *scope != self.scope.to_string())
    }

    /// The grant after a rotation to generation `to`.
    #[must_use]
    pub fn rotated(&self, to: u32, asked: &Asked, now: Timestamp, policy: &TokenPolicy) -> Self {
        Self {
            generation: to,
            rotated_at: now,
            rotated_with: self.less(asked),
            access_used: false,
            idle_expires_at: now + policy.refresh_idle,
            ..self.clone()
        }
    }
}

fn next(generation: u32) -> Result<u32, OAuthError> {
    generation
        .checked_add(1)
        .ok_or_else(|| OAuthError::invalid_grant("the refresh token can be rotated no further"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::{
        error::ErrorCode,
        grant::Revoked,
        identifiers::{Issuer, Resource},
        scope::Scope,
    };

    const W: i64 = 120;
    const DAY: i64 = 24 * 60 * 60;

    fn grant(generation: u32, access_used: bool) -> Grant {
        Grant {
            generation,
            access_used,
            idle_expires_at: Timestamp(30 * DAY),
            absolute_expires_at: Timestamp(365 * DAY),
            ..Grant::sample()
        }
    }

    fn rotate(grant: &Grant, generation: u32, now: i64) -> Result<Rotation, ErrorCode> {
        grant
            .rotate(
                generation,
                &Asked::default(),
                Timestamp(now),
                &TokenPolicy::default(),
            )
            .map_err(|error| error.code)
    }

    #[test]
    fn the_live_token_is_rotated() {
        assert_eq!(
            rotate(&grant(5, true), 5, 29 * DAY),
            Ok(Rotation::Rotate { to: 6 })
        );
    }

    #[test]
    fn the_predecessor_gets_the_same_answer_within_the_window() {
        let repeat = Ok(Rotation::Repeat {
            generation: 5,
            why: Repeated::WithinWindow,
        });
        for now in [0, 1, W] {
            assert_eq!(rotate(&grant(5, true), 4, now), repeat, "after {now} s");
        }
        assert_eq!(rotate(&grant(5, true), 4, W + 1), Ok(Rotation::Reuse));
    }

    #[test]
    fn a_lost_answer_is_given_again_for_a_day_unless_it_was_used() {
        let lost = Ok(Rotation::Repeat {
            generation: 5,
            why: Repeated::AnswerLost,
        });
        assert_eq!(rotate(&grant(5, false), 4, W + 1), lost);
        assert_eq!(rotate(&grant(5, false), 4, DAY), lost);
        assert_eq!(rotate(&grant(5, false), 4, DAY + 1), Ok(Rotation::Reuse));
        assert_eq!(rotate(&grant(5, true), 4, DAY), Ok(Rotation::Reuse));
    }

    #[test]
    fn an_older_ancestor_is_reuse_even_within_the_window() {
        for generation in [1, 2, 3] {
            assert_eq!(rotate(&grant(5, false), generation, 0), Ok(Rotation::Reuse));
        }
    }

    #[test]
    fn a_generation_that_the_store_lost_is_healed_unless_that_is_off() {
        assert_eq!(rotate(&grant(5, true), 7, 0), Ok(Rotation::Heal { to: 8 }));
        let strict = TokenPolicy {
            heal_store_regression: false,
            ..TokenPolicy::default()
        };
        let refused = grant(5, true).rotate(7, &Asked::default(), Timestamp(0), &strict);
        assert_eq!(refused.unwrap_err().code, ErrorCode::InvalidGrant);
    }

    #[test]
    fn tk_20_a_dead_grant_is_an_invalid_grant() {
        let dead = Err(ErrorCode::InvalidGrant);
        assert_eq!(rotate(&grant(5, true), 5, 30 * DAY), dead);
        let absolute = Grant {
            idle_expires_at: Timestamp(400 * DAY),
            ..grant(5, true)
        };
        assert_eq!(rotate(&absolute, 5, 365 * DAY), dead);
        assert_eq!(
            rotate(&absolute, 5, 365 * DAY - 1),
            Ok(Rotation::Rotate { to: 6 })
        );
        let revoked = Grant {
            revoked: Some(Revoked::ByClient),
            ..grant(5, true)
        };
        assert_eq!(rotate(&revoked, 5, 0), dead);
        assert_eq!(rotate(&revoked, 1, 0), dead);
    }

    #[test]
    fn a_repetition_that_asks_for_something_else_is_refused_and_ends_nothing() {
        let policy = TokenPolicy::default();
        let wide = Grant {
            scope: Scope::granted(Some("mcp offline_access")).unwrap(),
            ..grant(5, true)
        };
        let asked = |scope: Option<&str>| Asked {
            scope: scope.map(str::to_owned),
            resource: None,
        };
        let narrow = asked(Some("mcp"));
        let refused = wide.rotate(4, &narrow, Timestamp(0), &policy);
        assert_eq!(refused.unwrap_err().code, ErrorCode::InvalidGrant);
        for same in [None, Some("offline_access mcp"), Some("openid profile")] {
            let repeated = wide.rotate(4, &asked(same), Timestamp(0), &policy);
            assert!(repeated.is_ok(), "{same:?}");
        }
        let narrowed = wide.rotated(5, &narrow, Timestamp(0), &policy);
        assert!(narrowed.rotate(4, &narrow, Timestamp(0), &policy).is_ok());
        assert!(
            narrowed
                .rotate(4, &asked(None), Timestamp(0), &policy)
                .is_err()
        );
    }

    #[test]
    fn tk_19_a_refresh_cannot_change_resource() {
        let other = Resource::at(&Issuer::parse("https://gw.example").unwrap(), "/mcp/other");
        let asked = Asked {
            scope: None,
            resource: Some(other),
        };
        let refused = grant(5, true).rotate(5, &asked, Timestamp(0), &TokenPolicy::default());
        assert_eq!(refused.unwrap_err().code, ErrorCode::InvalidTarget);
    }

    #[test]
    fn rotating_renews_the_idle_time_and_forgets_use() {
        let policy = TokenPolicy::default();
        let next = grant(5, true).rotated(6, &Asked::default(), Timestamp(DAY), &policy);
        assert_eq!((next.generation, next.access_used), (6, false));
        assert_eq!(next.idle_expires_at, Timestamp(31 * DAY));
        assert_eq!(next.absolute_expires_at, Timestamp(365 * DAY));
    }
}
