package update

import "errors"

var (
	// ErrManifest is returned when a manifest is not of the form that this version reads.
	ErrManifest = errors.New("not a release manifest")
	// ErrSignature is returned when no trusted key has signed the manifest.
	ErrSignature = errors.New("not signed by a key of update.keys")
	// ErrNoKeys is returned when no release key is trusted, so that nothing can be.
	ErrNoKeys = errors.New("no release key is trusted")
	// ErrPlatform is returned when the release has no program for this platform.
	ErrPlatform = errors.New("the release has nothing for this platform")
	// ErrNotNewer is returned when the release is the version that runs, or an older one.
	ErrNotNewer = errors.New("not newer than what runs")
	// ErrStep is returned when the release wants a newer version than the one that runs to start from.
	ErrStep = errors.New("this version is too old for the release")
	// ErrRejected is returned when this box has gone back from that version before.
	ErrRejected = errors.New("this box has gone back from that version before")
	// ErrSpace is returned when the file system of the program has no room for another one.
	ErrSpace = errors.New("not enough space")
	// ErrFile is returned when a file is not the one that the manifest means.
	ErrFile = errors.New("not the file of the manifest")
	// ErrPending is returned when a change is under way, or was cut off and is not resumed yet.
	ErrPending = errors.New("a change of the program is under way")
	// ErrReturned is returned when the new program was no good and the old one runs again.
	ErrReturned = errors.New("the new version was no good, the old one runs again")
	// ErrNothing is returned when there is no older program to go back to.
	ErrNothing = errors.New("there is no older program to go back to")
	// ErrHTTP is returned when a web server does not give the file.
	ErrHTTP = errors.New("no file from the web server")
)
