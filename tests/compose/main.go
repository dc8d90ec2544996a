// Loads a compose file as Docker Compose does, by its own library, and says what is wrong with it: keys that do not exist, values of a wrong kind,
// services that are not there.
package main

import (
	"context"
	"log"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	log.SetFlags(0)
	options, err := cli.NewProjectOptions(os.Args[1:])
	if err != nil {
		log.Fatal(err)
	}
	if _, err := options.LoadProject(context.Background()); err != nil {
		log.Fatal(err)
	}
}
