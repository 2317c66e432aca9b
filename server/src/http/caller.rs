//! Who calls the API, as extractors: a handler that names one of these cannot be reached without it.

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::request::Parts;
use tidemill_lake::auth::{AuthError, Authenticator as _, Caller};
use tidemill_store::metastore::KeyRole;
use tidemill_types::OrganizationId;

use super::ApiState;
use super::problem::refuse_caller;
use crate::admin::Scope;

/// Any authenticated caller and whose rows it sees: an organization's key its own, an operator's all or those it names.
#[derive(Debug, Clone, Copy)]
pub struct Reader(pub Scope);

/// A caller that acts for exactly one organization.
#[derive(Debug, Clone, Copy)]
pub struct Member(pub OrganizationId);

/// An operator.
#[derive(Debug, Clone, Copy)]
pub struct Operator;

async fn authenticate(parts: &Parts, state: &ApiState) -> Result<Caller, Response> {
    state.authenticator.authenticate(&parts.headers).await.map_err(|error| refuse_caller(&error))
}

impl FromRequestParts<ApiState> for Reader {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Response> {
        let caller = authenticate(parts, state).await?;
        match (caller.role, caller.organization) {
            (KeyRole::Operator, scope) => Ok(Self(scope)),
            (KeyRole::Organization, Some(own)) => Ok(Self(Some(own))),
            (KeyRole::Organization, None) => Err(refuse_caller(&AuthError::Unknown)),
        }
    }
}

impl FromRequestParts<ApiState> for Member {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Response> {
        let missing = "an operator's key needs the header x-tidemill-organization with an organization's id or name";
        match authenticate(parts, state).await?.organization {
            Some(organization) => Ok(Self(organization)),
            None => Err(refuse_caller(&AuthError::Forbidden(missing.to_owned()))),
        }
    }
}

impl FromRequestParts<ApiState> for Operator {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Response> {
        match authenticate(parts, state).await?.role {
            KeyRole::Operator => Ok(Self),
            KeyRole::Organization => {
                Err(refuse_caller(&AuthError::Forbidden("this needs an operator's key".to_owned())))
            }
        }
    }
}
