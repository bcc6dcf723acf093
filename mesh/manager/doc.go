// Package manager is the node manager: an app beside a node that holds the signed records of all nodes, sees them come
// and go, proposes disjoint paths, and shows the mesh. Nodes reach it by a stream to the service "manager"; people by
// the node's app.call.
//
// It commands nobody: what it says are proposals that the source judges, and what it knows are records that carry their
// own signatures, so a manager that lies or dies costs a mesh nothing but its view. Nobody is admitted or refused here,
// and no packet passes through.
//
// Rules: one loop (Run) computes and proposes; the requests of nodes only change the database and mark it dirty. Lock
// order: Manager.mu alone; nothing is sent with it held. Issuer.turn is no lock of that order: it is one decision's turn,
// its transaction and the word to the node included. At most maxSessions nodes and maxWants wishes each.
package manager
