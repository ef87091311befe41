//! What the driver and the store say when something fails, without what was written.
//!
//! A server's own message may quote values, statements and user names, so none is passed on: the kind of error and its
//! numbers are told, which is what an operator acts on.

use gatebell_engine::ports::PortError;
use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, PrepareError, RequestAttemptError, UseKeyspaceError,
};

/// The name of the port in errors.
pub(super) const PORT: &str = "store";

/// An error of the store with `cause`.
pub(super) fn store_error(cause: impl std::fmt::Display) -> PortError {
    PortError::new(PORT, cause)
}

/// Why a statement could not be run.
pub(super) fn execution(error: &ExecutionError) -> PortError {
    store_error(execution_cause(error))
}

/// Why a change of the schema could not be made. It holds no values, so the server's own words may be told.
pub(super) fn schema_change(error: &ExecutionError) -> PortError {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(_, told)) => store_error(told),
        _ => execution(error),
    }
}

/// Why a statement could not be prepared.
pub(super) fn prepare(error: &PrepareError) -> PortError {
    store_error(prepare_cause(error))
}

/// Why the store could not be reached.
pub(super) fn new_session(error: &NewSessionError) -> PortError {
    store_error(match error {
        NewSessionError::FailedToResolveAnyHostname(_) => {
            "no contact point's name can be resolved".to_owned()
        }
        NewSessionError::EmptyKnownNodesList => "no contact point is given".to_owned(),
        NewSessionError::MetadataError(error) => metadata_cause(error),
        NewSessionError::UseKeyspaceError(error) => use_keyspace_cause(error),
        _ => "the driver does not take these settings".to_owned(),
    })
}

/// Why the keyspace could not be used.
pub(super) fn use_keyspace(error: &UseKeyspaceError) -> PortError {
    store_error(use_keyspace_cause(error))
}

/// What the store answered, if it answered an error.
pub(super) fn db_error(error: &ExecutionError) -> Option<&DbError> {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _))
        | ExecutionError::PrepareError(PrepareError::AllAttemptsFailed {
            first_attempt: RequestAttemptError::DbError(error, _),
            ..
        }) => Some(error),
        _ => None,
    }
}

fn execution_cause(error: &ExecutionError) -> String {
    match error {
        ExecutionError::BadQuery(_) => "the values do not fit the statement".to_owned(),
        ExecutionError::EmptyPlan => {
            "no node of the local datacentre is known: is its name right?".to_owned()
        }
        ExecutionError::PrepareError(error) => prepare_cause(error),
        ExecutionError::ConnectionPoolError(error) => pool_cause(error),
        ExecutionError::LastAttemptError(error) => attempt_cause(error),
        ExecutionError::RequestTimeout(after) => format!("no answer within {} ms", after.as_millis()),
        ExecutionError::UseKeyspaceError(error) => use_keyspace_cause(error),
        ExecutionError::SchemaAgreementError(_) => "the nodes do not agree on the schema".to_owned(),
        ExecutionError::MetadataError(error) => metadata_cause(error),
        _ => "the driver failed".to_owned(),
    }
}

fn prepare_cause(error: &PrepareError) -> String {
    match error {
        PrepareError::ConnectionPoolError(error) => pool_cause(error),
        PrepareError::AllAttemptsFailed { first_attempt } => {
            format!("a statement was not accepted: {}", attempt_cause(first_attempt))
        }
        _ => "a statement was not accepted".to_owned(),
    }
}

fn use_keyspace_cause(error: &UseKeyspaceError) -> String {
    match error {
        UseKeyspaceError::RequestError(error) => format!("keyspace: {}", attempt_cause(error)),
        UseKeyspaceError::RequestTimeout(after) => {
            format!("keyspace: no answer within {} ms", after.as_millis())
        }
        _ => "keyspace: its name is not usable".to_owned(),
    }
}

fn metadata_cause(error: &MetadataError) -> String {
    match error {
        MetadataError::ConnectionPoolError(error) => pool_cause(error),
        _ => "the cluster's description cannot be read".to_owned(),
    }
}

fn pool_cause(error: &ConnectionPoolError) -> String {
    match error {
        ConnectionPoolError::Broken { last_connection_error } => connection_cause(last_connection_error),
        ConnectionPoolError::Initializing => "not connected yet".to_owned(),
        _ => "no connection".to_owned(),
    }
}

fn connection_cause(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectTimeout => "no connection: timed out".to_owned(),
        ConnectionError::IoError(error) => format!("no connection: {}", error.kind()),
        ConnectionError::BrokenConnection(_) => "the connection broke".to_owned(),
        ConnectionError::ConnectionSetupRequestError(error) => match error.get_error() {
            ConnectionSetupRequestErrorKind::DbError(error, _) => {
                format!("no connection: {}", db_cause(error))
            }
            ConnectionSetupRequestErrorKind::MissingAuthentication => {
                "no connection: the store asks for user and password".to_owned()
            }
            _ => "no connection: the greeting failed".to_owned(),
        },
        _ => "no connection".to_owned(),
    }
}

fn attempt_cause(error: &RequestAttemptError) -> String {
    match error {
        RequestAttemptError::BrokenConnectionError(_) => "the connection broke".to_owned(),
        RequestAttemptError::UnableToAllocStreamId => {
            "too many requests are waiting on a connection".to_owned()
        }
        RequestAttemptError::DbError(error, _) => db_cause(error),
        _ => "the answer cannot be read".to_owned(),
    }
}

fn db_cause(error: &DbError) -> String {
    match error {
        DbError::Unavailable { required, alive, .. } => {
            format!("unavailable: {alive} of {required} needed replicas are up")
        }
        DbError::ReadTimeout { received, required, .. } => {
            format!("reading timed out with {received} of {required} answers")
        }
        DbError::WriteTimeout { received, required, write_type, .. } => {
            format!("writing ({write_type}) timed out with {received} of {required} answers")
        }
        DbError::ReadFailure { numfailures, .. } => format!("reading failed on {numfailures} replicas"),
        DbError::WriteFailure { numfailures, .. } => format!("writing failed on {numfailures} replicas"),
        DbError::Overloaded | DbError::RateLimitReached { .. } => "overloaded".to_owned(),
        DbError::IsBootstrapping => "the node is still starting".to_owned(),
        DbError::AuthenticationError => "user or password is wrong".to_owned(),
        DbError::Unauthorized => "the user may not do this".to_owned(),
        DbError::SyntaxError | DbError::Invalid | DbError::ConfigError => {
            "a statement is not valid here: are keyspace and schema those of this program?".to_owned()
        }
        DbError::ServerError => "the server failed".to_owned(),
        // Among them 0x1700, Cassandra's word for a compare-and-set whose outcome it does not know.
        DbError::Other(code) => format!("error {code:#06x}"),
        _ => "the server refused".to_owned(),
    }
}
