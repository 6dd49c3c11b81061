//! The table of methods: number, store and name of each, and whether it changes data.

use crate::driver::Store;

macro_rules! methods {
    ($($method:ident = $number:literal $store:ident $name:literal $effect:ident;)*) => {
        /// A method of a store's trait.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Method {
            $($method,)*
        }

        impl Method {
            pub const ALL: &'static [Method] = &[$(Method::$method),*];

            /// Its number in the C ABI. Numbers are never reused.
            pub const fn number(self) -> u32 {
                match self {
                    $(Method::$method => $number,)*
                }
            }

            pub const fn store(self) -> Store {
                match self {
                    $(Method::$method => Store::$store,)*
                }
            }

            /// The last part of its path on a remote driver.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Method::$method => $name,)*
                }
            }

            /// Whether it changes stored data, so that its outcome matters if the response is lost.
            pub const fn changes(self) -> bool {
                match self {
                    $(Method::$method => methods!(@ $effect),)*
                }
            }

            /// The name of its messages without `Request` and `Response`.
            pub(super) const fn message(self) -> &'static str {
                match self {
                    $(Method::$method => stringify!($method),)*
                }
            }
        }
    };
    (@ reads) => { false };
    (@ changes) => { true };
}

// To add a method, add one line here, its messages in `proto/driver.proto`, and its handling in `service` and `client`.
methods! {
    SecureHealth = 1 Secure "health" reads;
    SecureClose = 2 Secure "close" changes;
    SecureGet = 3 Secure "get" reads;
    SecurePut = 4 Secure "put" changes;
    SecureDelete = 5 Secure "delete" changes;
    SecureList = 6 Secure "list" reads;

    EventHealth = 101 Event "health" reads;
    EventClose = 102 Event "close" changes;
    EventAppend = 103 Event "append" changes;
    EventRead = 104 Event "read" reads;
    EventLast = 105 Event "last" reads;
    EventHead = 106 Event "head" reads;
    EventReserve = 107 Event "reserve" changes;
    EventForgetClaims = 108 Event "forget-claims" changes;
    EventNextClaim = 109 Event "next-claim" reads;
    EventHolder = 110 Event "holder" reads;
    EventCreateGroup = 111 Event "create-group" changes;
    EventDropGroup = 112 Event "drop-group" changes;
    EventGroups = 113 Event "groups" reads;
    EventClaim = 114 Event "claim" changes;
    EventAck = 115 Event "ack" changes;
    EventRelease = 116 Event "release" changes;
    EventRenew = 117 Event "renew" changes;
    EventIsDone = 118 Event "is-done" reads;
    EventLag = 119 Event "lag" reads;
    EventPutBlob = 120 Event "put-blob" changes;
    EventGetBlob = 121 Event "get-blob" reads;
    EventExport = 122 Event "export" changes;
    EventExportNext = 123 Event "export-next" changes;
    EventExportClose = 124 Event "export-close" changes;
    EventImport = 125 Event "import" changes;
    EventFinishImport = 126 Event "finish-import" changes;
    EventAnnounce = 127 Event "announce" changes;
    EventNodes = 128 Event "nodes" reads;

    ModelHealth = 201 Model "health" reads;
    ModelClose = 202 Model "close" changes;
    ModelDefine = 203 Model "define" changes;
    ModelPrepare = 204 Model "prepare" changes;
    ModelDiscard = 205 Model "discard" changes;
    ModelBeginReplay = 206 Model "begin-replay" changes;
    ModelEndReplay = 207 Model "end-replay" changes;
    ModelDropModel = 208 Model "drop-model" changes;
    ModelApply = 209 Model "apply" changes;
    ModelLog = 210 Model "log" reads;
    ModelCheckpoint = 211 Model "checkpoint" reads;
    ModelDefinitions = 212 Model "definitions" reads;
    ModelGet = 213 Model "get" reads;
    ModelQuery = 214 Model "query" reads;
    ModelCount = 215 Model "count" reads;
    ModelReset = 216 Model "reset" changes;

    ErrorHealth = 301 Error "health" reads;
    ErrorClose = 302 Error "close" changes;
    ErrorRecord = 303 Error "record" changes;
    ErrorList = 304 Error "list" reads;
    ErrorCount = 305 Error "count" reads;
    ErrorGet = 306 Error "get" reads;
    ErrorRemove = 307 Error "remove" changes;
}

impl Method {
    /// The method with that number.
    pub fn from_number(number: u32) -> Option<Method> {
        Method::ALL.iter().copied().find(|method| method.number() == number)
    }

    /// The method at that path of a remote driver.
    pub fn from_path(store: &str, name: &str) -> Option<Method> {
        Method::ALL.iter().copied().find(|method| method.store().as_str() == store && method.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_and_addresses_are_unique() {
        let numbers: HashSet<u32> = Method::ALL.iter().map(|method| method.number()).collect();
        assert_eq!(numbers.len(), Method::ALL.len());
        for method in Method::ALL {
            assert_eq!(Method::from_number(method.number()), Some(*method));
            assert_eq!(Method::from_path(method.store().as_str(), method.name()), Some(*method));
        }
        assert_eq!((Method::from_number(0), Method::from_path("event", "appendd")), (None, None));
    }
}
