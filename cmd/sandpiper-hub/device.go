package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/agent/hub"
	"github.com/sandpiper-edge/sandpiper/agent/iothub"
	"github.com/sandpiper-edge/sandpiper/cmd/console"
)

func (s *shared) deviceCommand() *cobra.Command {
	var n hub.NewIdentity
	var leaf bool
	var certificate string
	create := s.withJSON(&cobra.Command{
		Use: "create DEVICE", Short: "Create an edge device and print its connection string",
		Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args[0])
			if err != nil {
				return err
			}
			n.ID, n.Edge = id, !leaf
			if certificate != "" {
				thumb, err := thumbprint(certificate)
				if err != nil {
					return err
				}
				n.Thumbprint = []string{thumb}
			}
			return s.create(cmd, n)
		},
	})
	create.Flags().BoolVar(&leaf, "leaf", false, "an ordinary device instead of an edge device")
	create.Flags().StringVar(&n.Key, "key", "", "its key in base64 (default: the hub makes keys)")
	create.Flags().StringVar(&certificate, "certificate", "", "PEM file of the certificate by which it proves itself instead of a key")
	list := s.withJSON(&cobra.Command{
		Use: "list", Short: "List the devices", Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(func(c *hub.Owner) error {
				devices, err := c.Devices(cmd.Context())
				if err != nil {
					return err
				}
				return s.identities(devices)
			})
		},
	})
	return console.Group("device", "Devices of the registry", create, list,
		s.withJSON(s.one("show DEVICE", "Print a device, its keys too", 1, s.show)),
		s.one("delete DEVICE", "Delete a device and its modules", 1, remove),
		s.one("connection-string DEVICE", "Print what the device is configured with", 1, s.connectionString))
}

func (s *shared) moduleCommand() *cobra.Command {
	list := s.withJSON(s.one("list DEVICE", "List the modules of a device", 1, func(cmd *cobra.Command, c *hub.Owner, id iothub.ID) error {
		modules, err := c.Modules(cmd.Context(), id.Device)
		if err != nil {
			return err
		}
		return s.identities(modules)
	}))
	create := s.withJSON(&cobra.Command{
		Use: "create DEVICE MODULE", Short: "Create a module and print its connection string", Args: cobra.ExactArgs(2), ValidArgsFunction: s.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args...)
			if err != nil {
				return err
			}
			return s.create(cmd, hub.NewIdentity{ID: id})
		},
	})
	return console.Group("module", "Modules of the registry", create, list,
		s.withJSON(s.one("show DEVICE MODULE", "Print a module, its keys too", 2, s.show)),
		s.one("delete DEVICE MODULE", "Delete a module", 2, remove),
		s.one("connection-string DEVICE MODULE", "Print what the module is configured with", 2, s.connectionString))
}

// one is a verb on one identity that is named by n arguments.
func (s *shared) one(use, short string, n int, do func(*cobra.Command, *hub.Owner, iothub.ID) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(n), ValidArgsFunction: s.complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args...)
			if err != nil {
				return err
			}
			return s.with(func(c *hub.Owner) error { return do(cmd, c, id) })
		},
	}
}

func (s *shared) create(cmd *cobra.Command, n hub.NewIdentity) error {
	return s.with(func(c *hub.Owner) error {
		made, err := c.Create(cmd.Context(), n)
		if err != nil {
			return err
		}
		if s.json {
			return console.JSON(s.out, made)
		}
		return s.connectionOf(c, made)
	})
}

func (s *shared) show(cmd *cobra.Command, c *hub.Owner, id iothub.ID) error {
	found, err := c.Identity(cmd.Context(), id)
	if err != nil {
		return err
	}
	return console.JSON(s.out, found)
}

func remove(cmd *cobra.Command, c *hub.Owner, id iothub.ID) error {
	return c.Delete(cmd.Context(), id)
}

func (s *shared) connectionString(cmd *cobra.Command, c *hub.Owner, id iothub.ID) error {
	found, err := c.Identity(cmd.Context(), id)
	if err != nil {
		return err
	}
	return s.connectionOf(c, found)
}

// connectionOf prints a connection string: it is the one place where a secret is the answer.
func (s *shared) connectionOf(c *hub.Owner, i hub.Identity) error {
	text, err := c.ConnectionString(i)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.out, text.Reveal())
	return err
}

// identities prints a listing.
func (s *shared) identities(list []hub.Identity) error {
	if s.json {
		return console.JSON(s.out, list)
	}
	var rows [][]string
	for _, i := range list {
		name, status := i.DeviceID, i.Status
		if i.ModuleID != "" {
			name, status = i.ModuleID, "-"
		}
		rows = append(rows, []string{name, status, i.ConnectionState, i.Authentication.Type})
	}
	return console.Table(s.out, "ID STATUS CONNECTION AUTHENTICATION", rows)
}

// thumbprint is the SHA-256 fingerprint of the first certificate in a PEM file.
func thumbprint(path string) (string, error) {
	text, err := readFile(path)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return "", errors.New(path + ": no certificate in it")
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:]), nil
}

// complete offers device ids, then module ids.
func (s *shared) complete(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, err := hub.OpenOwner(s.dir)
	if err != nil || len(args) > 1 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	defer c.Close()
	list := c.Devices
	if len(args) == 1 {
		list = func(ctx context.Context) ([]hub.Identity, error) { return c.Modules(ctx, args[0]) }
	}
	found, err := list(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, i := range found {
		name := i.DeviceID
		if i.ModuleID != "" {
			name = i.ModuleID
		}
		names = append(names, name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// readFile reads a small file whole.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, path)
}
