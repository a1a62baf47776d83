// A program on gophercloud 2: signs in from clouds.yaml (OS_CLOUD) or OS_*, as its documentation shows it.
package main

import (
	"context"
	"crypto/tls"
	"os"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/config"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/tokens"
	"github.com/gophercloud/gophercloud/v2/openstack/objectstorage/v1/containers"

	"keystone-broker/tests/stack/gophercloud/work"
)

func main() { work.Main(signIn) }

func signIn() (work.Session, error) {
	ctx := context.Background()
	auth, endpoint, trust, err := settings()
	if err != nil {
		return work.Session{}, err
	}
	auth.AllowReauth = true
	provider, err := config.NewProviderClient(ctx, auth, config.WithTLSConfig(trust))
	if err != nil {
		return work.Session{}, err
	}
	store, err := openstack.NewObjectStorageV1(provider, endpoint)
	if err != nil {
		return work.Session{}, err
	}
	project, err := provider.GetAuthResult().(tokens.CreateResult).ExtractProject()
	if err != nil {
		return work.Session{}, err
	}
	return work.Session{Project: project.ID, Round: func() (int, error) { return round(ctx, store) }}, nil
}

func settings() (gophercloud.AuthOptions, gophercloud.EndpointOpts, *tls.Config, error) {
	if os.Getenv("OS_CLOUD") != "" {
		return clouds.Parse()
	}
	auth, err := openstack.AuthOptionsFromEnv()
	if err != nil {
		return auth, gophercloud.EndpointOpts{}, nil, err
	}
	trust, err := work.TLS(os.Getenv("OS_CACERT"))
	return auth, gophercloud.EndpointOpts{Region: os.Getenv("OS_REGION_NAME")}, trust, err
}

func round(ctx context.Context, store *gophercloud.ServiceClient) (int, error) {
	if _, err := containers.Create(ctx, store, "gophercloud-v2", nil).Extract(); err != nil {
		return 0, err
	}
	page, err := containers.List(store, nil).AllPages(ctx)
	if err != nil {
		return 0, err
	}
	names, err := containers.ExtractNames(page)
	return len(names), err
}
