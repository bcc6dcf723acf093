// Package update replaces this program by a newer one: signed releases, where they come from, and the change itself, which
// goes back by itself if the new program is no good.
//
// A release is a folder: manifest.json says which files there are, manifest.json.sig who vouches for that, and a file for each
// platform is the program. Where the folder lies (a disk, a web server, another node) makes no difference: nothing is believed
// but the signature of a key that the owner of this box has named. Without such a key nothing is done at all.
//
// The change keeps two programs: PROGRAM is what runs, PROGRAM.old what ran before, both whole at every moment; PROGRAM.new is
// one that is being fetched. Between the change and the verdict on the new program a journal in the state folder says
// "trial". Whoever finds it there after a power cut (Resume, which PROGRAM.old can run) brings the trial to its end.
//
// It does not know what a service, a node or an init system is: a Service restarts what runs and says whether it is well. It
// compares versions, and decides nothing about when to look for new ones.
package update
